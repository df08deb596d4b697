#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmfabric_fuzz::dhcpv6::run(bytes));
