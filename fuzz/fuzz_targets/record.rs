//! A record of any bytes: the quick path declines it, or makes the line that the general path makes.

#![no_main]

#[path = "../both.rs"]
mod both;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| both::assert_equal(bytes));
