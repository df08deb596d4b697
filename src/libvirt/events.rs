//! The FFI edge: libvirt's event loop, and a connection together with its callbacks.
//!
//! Callbacks run on the event loop's thread and only mark what has changed; no libvirt call that could block is made
//! there.
#![allow(unsafe_code)]

use super::mailbox::Mailbox;
use std::{
    ffi::{c_char, c_int, c_void},
    mem::transmute,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;
use virt::{
    connect::Connect,
    error::{Error, ErrorNumber, clear_error_callback},
    event::{event_register_default_impl, event_run_default_impl},
    sys,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the libvirt URI has a NUL character; write one like qemu:///system")]
    Uri,
    #[error("cannot start libvirt's event loop: {0}")]
    EventLoop(String),
    #[error("{}", .0.message())]
    Libvirt(#[from] Error),
}

/// Gives libvirt its event loop, once per process: libvirt keeps a single one, registers it before any connection, and
/// cannot take it back.
fn start_event_loop() -> Result<(), SessionError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        // libvirt would print each error on stderr as well.
        clear_error_callback();
        event_register_default_impl().map_err(|e| e.message().to_owned())?;
        let spawned = thread::Builder::new().name("libvirt-events".to_owned()).spawn(|| {
            loop {
                if let Err(e) = event_run_default_impl() {
                    tracing::error!("libvirt's event loop failed: {}", e.message());
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
        spawned.map(drop).map_err(|e| e.to_string())
    });
    started.clone().map_err(SessionError::EventLoop)
}

/// Opens a connection without callbacks or keepalive; [`Connect::close`] is the caller's to call. Blocks.
pub(super) fn open_bare(uri: &str) -> Result<Connect, SessionError> {
    start_event_loop()?;
    if uri.contains('\0') {
        return Err(SessionError::Uri);
    }
    Ok(Connect::open(Some(uri))?)
}

/// Where one connection's callbacks report to. `epoch` tells the news of this connection from that of an earlier one.
struct Listener {
    mailbox: Arc<Mailbox>,
    epoch: u64,
}

/// A connection with keepalive, whose events go to a mailbox. Unsubscribes and closes when dropped.
pub(super) struct Session {
    connect: Connect,
    domain_events: Vec<c_int>,
    network_events: Vec<c_int>,
    close_callback: bool,
    lacks_network_events: bool,
    since: Instant,
}

impl Session {
    /// Connects and subscribes. Blocks, for as long as a hung libvirtd that holds its socket open makes it.
    pub(super) fn open(
        uri: &str,
        keepalive: (i32, u32),
        mailbox: &Arc<Mailbox>,
        epoch: u64,
    ) -> Result<Self, SessionError> {
        let connect = open_bare(uri)?;
        let mut session = Self {
            connect,
            domain_events: Vec::new(),
            network_events: Vec::new(),
            close_callback: false,
            lacks_network_events: false,
            since: Instant::now(),
        };
        let listener = || Box::new(Listener { mailbox: Arc::clone(mailbox), epoch });
        session.on_close(listener())?;
        if_supported(session.connect.set_keep_alive(keepalive.0, keepalive.1).map(drop))?;
        // SAFETY (the three transmutes): libvirt takes a generic function pointer and calls it by the signature that
        // belongs to the event ID (virConnectDomainEventID); `lifecycle`, `device` and `metadata` have exactly these.
        let (lifecycle, device, metadata) = unsafe {
            (
                transmute::<LifecycleCallback, DomainCallback>(on_lifecycle),
                transmute::<DeviceCallback, DomainCallback>(on_device),
                transmute::<MetadataCallback, DomainCallback>(on_metadata),
            )
        };
        session.on_domain(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, listener())?;
        session.on_domain(sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device, listener())?;
        session.on_domain(sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device, listener())?;
        let subscribed = session.on_domain(sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata, listener());
        optional("metadata events", subscribed)?;
        let subscribed = session.on_networks(listener());
        session.lacks_network_events = subscribed.as_ref().is_err_and(|e| e.code() != ErrorNumber::NoSupport);
        optional("network events", subscribed)?;
        Ok(session)
    }

    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// The subscription failed, which another connection's need not.
    pub(super) fn lacks_network_events(&self) -> bool {
        self.lacks_network_events
    }

    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the connection still stands, without asking the other side.
    pub(super) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    fn on_close(&mut self, listener: Box<Listener>) -> Result<(), Error> {
        let opaque = Box::into_raw(listener);
        // SAFETY: the connection is open; `on_closed` and `release` have the signatures asked for and take a `Listener`
        // made by `Box::into_raw`, which libvirt hands to `release` exactly once after the last call.
        let failed = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_closed), opaque.cast(), Some(release))
        } < 0;
        self.close_callback = !failed;
        if_supported(if failed { Err(rejected(opaque)) } else { Ok(()) })
    }

    fn on_domain(
        &mut self,
        event: sys::virDomainEventID,
        callback: DomainCallback,
        listener: Box<Listener>,
    ) -> Result<(), Error> {
        let opaque = Box::into_raw(listener);
        // SAFETY: as in `on_close`; a null domain means all of them, and `callback` fits `event`.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                // The IDs are below 30.
                event as c_int,
                Some(callback),
                opaque.cast(),
                Some(release),
            )
        };
        if id < 0 {
            return Err(rejected(opaque));
        }
        self.domain_events.push(id);
        Ok(())
    }

    fn on_networks(&mut self, listener: Box<Listener>) -> Result<(), Error> {
        let opaque = Box::into_raw(listener);
        // SAFETY: as in `on_close`; `on_network` has the signature that VIR_NETWORK_EVENT_ID_LIFECYCLE is called with.
        let id = unsafe {
            sys::virConnectNetworkEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                sys::VIR_NETWORK_EVENT_ID_LIFECYCLE as c_int,
                Some(transmute::<NetworkCallback, GenericNetworkCallback>(on_network)),
                opaque.cast(),
                Some(release),
            )
        };
        if id < 0 {
            return Err(rejected(opaque));
        }
        self.network_events.push(id);
        Ok(())
    }
}

impl Drop for Session {
    /// On a dead connection the calls fail, but take our callbacks out of the library first.
    fn drop(&mut self) {
        let connect = self.connect.as_ptr();
        // SAFETY: the connection has not been closed yet, and the IDs came from it. Each callback holds a reference to
        // the connection, so all must go for it to be freed.
        unsafe {
            for id in self.domain_events.drain(..) {
                sys::virConnectDomainEventDeregisterAny(connect, id);
            }
            for id in self.network_events.drain(..) {
                sys::virConnectNetworkEventDeregisterAny(connect, id);
            }
            if self.close_callback {
                sys::virConnectUnregisterCloseCallback(connect, Some(on_closed));
            }
        }
        if let Err(e) = self.connect.close() {
            tracing::debug!("closing the libvirt connection: {}", e.message());
        }
    }
}

/// Takes back the listener of a registration that libvirt refused (then it does not call `release`), and says why.
fn rejected(opaque: *mut Listener) -> Error {
    let error = Error::last_error();
    // SAFETY: comes from `Box::into_raw` and libvirt has not kept it.
    drop(unsafe { Box::from_raw(opaque) });
    error
}

/// A driver inside this process (`test:`) has no connection that could break.
fn if_supported(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|e| if e.code() == ErrorNumber::NoSupport { Ok(()) } else { Err(e) })
}

/// Lets a session do without a subscription, unless the connection itself is gone.
fn optional(what: &str, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.code() == ErrorNumber::Rpc => Err(e),
        Err(e) => {
            tracing::warn!("libvirt has no {what} for us: {}", e.message());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

type DomainCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type DeviceCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type MetadataCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);
type GenericNetworkCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, *mut c_void);
type NetworkCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, c_int, c_int, *mut c_void);

unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes a valid domain and the listener that was registered.
    unsafe { domain_changed(domain, opaque) };
    0
}

unsafe extern "C" fn on_device(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { domain_changed(domain, opaque) };
}

unsafe extern "C" fn on_metadata(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    _namespace: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { domain_changed(domain, opaque) };
}

/// # Safety
/// `domain` is a valid domain and `opaque` a live `Listener`.
unsafe fn domain_changed(domain: sys::virDomainPtr, opaque: *mut c_void) {
    const _: () = assert!(sys::VIR_UUID_BUFLEN == 16);
    let mut uuid = [0; 16];
    // SAFETY: by this function's contract; the buffer has VIR_UUID_BUFLEN bytes. Reads the handle, asks nobody.
    let (read, listener) =
        unsafe { (sys::virDomainGetUUID(domain, uuid.as_mut_ptr()), &*opaque.cast_const().cast::<Listener>()) };
    if read == 0 {
        listener.mailbox.domain_changed(Uuid::from_bytes(uuid));
    } else {
        listener.mailbox.resync();
    }
}

unsafe extern "C" fn on_network(
    _connect: sys::virConnectPtr,
    _network: sys::virNetworkPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt passes the listener that was registered, which `release` has not had yet.
    let listener = unsafe { &*opaque.cast_const().cast::<Listener>() };
    listener.mailbox.networks_changed();
}

unsafe extern "C" fn on_closed(_connect: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `on_network`.
    let listener = unsafe { &*opaque.cast_const().cast::<Listener>() };
    let reason = match sys::virConnectCloseReason::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirt closed the connection",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirt does not answer",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "the connection was closed",
        _ => "the connection to libvirt broke",
    };
    listener.mailbox.closed(listener.epoch, reason);
}

unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: comes from `Box::into_raw` in a registration, and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}
