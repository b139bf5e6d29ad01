#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| callvault::testing::fuzz::token(data));
