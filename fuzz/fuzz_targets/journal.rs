#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reiver_fuzz::check_journal(bytes));
