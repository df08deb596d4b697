//! libnftables(3), kept open: a transaction costs a fraction of a millisecond, a process some ten.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint},
    ptr::NonNull,
};

#[repr(C)]
struct NftCtx {
    _opaque: [u8; 0],
}

/// `NFT_CTX_OUTPUT_STATELESS`: listings without the values of counters.
const OUTPUT_STATELESS: c_uint = 1 << 2;

#[link(name = "nftables")]
unsafe extern "C" {
    fn nft_ctx_new(flags: u32) -> *mut NftCtx;
    fn nft_ctx_free(ctx: *mut NftCtx);
    fn nft_ctx_output_set_flags(ctx: *mut NftCtx, flags: c_uint);
    fn nft_ctx_buffer_output(ctx: *mut NftCtx) -> c_int;
    fn nft_ctx_buffer_error(ctx: *mut NftCtx) -> c_int;
    fn nft_ctx_get_output_buffer(ctx: *mut NftCtx) -> *const c_char;
    fn nft_ctx_get_error_buffer(ctx: *mut NftCtx) -> *const c_char;
    fn nft_run_cmd_from_buffer(ctx: *mut NftCtx, buf: *const c_char) -> c_int;
}

/// An nft context of the network namespace of the thread that made it. Not `Send`, as libnftables asks.
///
/// Output is text, not JSON: libnftables up to 1.0.6 crashes when it writes a table's flags as JSON, and anybody who
/// may change tables could then end this process.
#[derive(Debug)]
pub struct Context(NonNull<NftCtx>);

impl Context {
    /// `None` where memory is short. libnftables ends the process where the kernel has no nf_tables netlink socket.
    pub fn new() -> Option<Self> {
        // SAFETY: 0 is NFT_CTX_DEFAULT; the context is owned by the value made of it, which frees it.
        let ctx = Self(NonNull::new(unsafe { nft_ctx_new(0) })?);
        // SAFETY: the pointer is a live context.
        let buffered = unsafe {
            nft_ctx_output_set_flags(ctx.0.as_ptr(), OUTPUT_STATELESS);
            nft_ctx_buffer_output(ctx.0.as_ptr()) == 0 && nft_ctx_buffer_error(ctx.0.as_ptr()) == 0
        };
        buffered.then_some(ctx)
    }

    /// Runs commands as one transaction: all of them, or none. Gives what they print, or nft's error text.
    pub fn run(&mut self, commands: &str) -> Result<String, String> {
        let commands = CString::new(commands).map_err(|_| "a command has a NUL byte".to_owned())?;
        // SAFETY: the context is live and `commands` is NUL-terminated; libnftables copies what it keeps.
        let status = unsafe { nft_run_cmd_from_buffer(self.0.as_ptr(), commands.as_ptr()) };
        // SAFETY: both buffers were asked for when the context was made; each call hands out a NUL-terminated string
        // that lives until the next run, and is copied at once.
        let (output, error) = unsafe {
            (text(nft_ctx_get_output_buffer(self.0.as_ptr())), text(nft_ctx_get_error_buffer(self.0.as_ptr())))
        };
        if status == 0 { Ok(output) } else { Err(error) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live and owned by this value.
        unsafe { nft_ctx_free(self.0.as_ptr()) }
    }
}

/// # Safety
/// `buffer` is null or points to a NUL-terminated string.
unsafe fn text(buffer: *const c_char) -> String {
    if buffer.is_null() {
        return String::new();
    }
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(buffer) }.to_string_lossy().into_owned()
}
