#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| reiver_fuzz::check_machine(text));
