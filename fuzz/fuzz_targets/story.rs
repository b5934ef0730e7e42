//! A story of any text, as a Python literal or prose: the reader ends, and a record with it is read by the quick
//! path as by the general one.

#![no_main]

#[path = "../both.rs"]
mod both;

use libfuzzer_sys::fuzz_target;

use ctxtune_engine::record::story::{self, StoryForm};

fuzz_target!(|text: &str| {
    let mut joined = String::new();
    if let Ok((story, form)) = story::read(text, &mut joined) {
        // Prose is carried as it is; only the items of a list are joined.
        assert!(form == StoryForm::List || story == text, "a story of prose was changed");
    }
    let story = serde_json::to_string(text).expect("every text is a JSON string");
    let question = r#""question": "Who?", "#;
    let context = r#""socialized_context": {"agents_names": ["Ann"], "socialized_context": [{"timestep": "1",
        "state": "s", "observations": {"Ann": "o"}, "actions": {"Ann": "none"}}]}"#;
    both::assert_equal(format!(r#"{{"story": {story}, {question}{context}}}"#).as_bytes());
});
