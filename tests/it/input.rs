//! Bad, odd and unreadable input: what each kind gets, through the program.
//!
//! What the parts do alone is tested beside them; here a record stands between neighbours,
//! and every promise about input is kept or broken in `OUT`.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use ctxtune_engine::split::rank;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Dir, Outcome, record, repository};

/// Every record may be bad, as long as one is good.
const BEAR_ALL: &[&str] = &["--max-rejects", "100%"];

/// The rejects of `out`: code and place by key.
fn rejects(dir: &Dir) -> BTreeMap<String, (String, String)> {
    let text = |reject: &Value, field: &str| reject[field].as_str().unwrap_or_default().to_owned();
    let rejects = dir.json_lines("out/rejects.jsonl");
    rejects.iter().map(|each| (text(each, "key"), (text(each, "code"), text(each, "at")))).collect()
}

fn codes(dir: &Dir) -> BTreeMap<String, String> {
    rejects(dir).into_iter().map(|(key, (code, _))| (key, code)).collect()
}

/// The context in the last message made from the record `key`.
fn context(dir: &Dir, key: &str) -> Value {
    serde_json::from_str(dir.texts(key).last().unwrap()).unwrap()
}

/// Prepares `records`, each under its place as key, beside two good ones.
fn prepare_all(records: impl IntoIterator<Item = String>) -> Dir {
    let dir = Dir::new();
    dir.corpus(2);
    for (place, content) in records.into_iter().enumerate() {
        dir.write(format!("corpus/case/{place}.json"), content);
    }
    dir.prepare(BEAR_ALL).expect(0);
    dir
}

fn case(place: usize) -> String {
    format!("case/{place}.json")
}

#[test]
fn each_malformed_file_is_rejected_and_its_neighbours_convert() {
    let dir = Dir::new();
    dir.corpus(20);
    let mut expected = BTreeMap::new();
    for row in std::fs::read_to_string(repository("fixtures/malformed.expected.tsv")).unwrap().lines() {
        let (file, code) = row.split_once('\t').unwrap();
        expected.insert(file.to_owned(), code.to_owned());
    }
    for entry in std::fs::read_dir(repository("fixtures/malformed")).unwrap() {
        let entry = entry.unwrap();
        dir.write(format!("corpus/{}", entry.file_name().display()), std::fs::read(entry.path()).unwrap());
    }
    let outcome = dir.prepare(BEAR_ALL).expect(0);

    assert_eq!(codes(&dir), expected);
    let mut converted = [dir.keys("train"), dir.keys("val")].concat();
    converted.sort_by_key(|key| key.trim_end_matches(".json").parse::<u32>().unwrap());
    assert_eq!(converted, (0..20).map(|number| format!("{number}.json")).collect::<Vec<_>>());

    let mut by_code = BTreeMap::<&str, u64>::new();
    expected.values().for_each(|code| *by_code.entry(code).or_default() += 1);
    let counts = &dir.manifest()["counts"];
    assert_eq!(counts["rejected_by_code"], json!(by_code));
    assert_eq!(
        (counts["listed"].as_u64(), counts["rejected"].as_u64()),
        (Some(20 + expected.len() as u64), Some(expected.len() as u64))
    );
    for (code, count) in by_code {
        assert!(outcome.stderr.contains(&format!("{code} {count}")), "{}", outcome.stderr);
    }
    for file in ["train.jsonl", "val.jsonl", "rejects.jsonl"] {
        assert!(
            !dir.read(format!("out/{file}")).contains('\u{fffd}'),
            "{file} holds a replacement character"
        );
    }
}

#[test]
fn rejects_are_listed_by_rank_each_with_its_reason_and_place() {
    let dir = Dir::new();
    for entry in std::fs::read_dir(repository("fixtures/malformed")).unwrap() {
        let entry = entry.unwrap();
        dir.write(format!("corpus/{}", entry.file_name().display()), std::fs::read(entry.path()).unwrap());
    }
    dir.corpus(2).prepare(BEAR_ALL).expect(0);

    let lines = dir.json_lines("out/rejects.jsonl");
    let keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    let mut by_rank = keys.clone();
    by_rank.sort_by_key(|key| rank(42, key.as_bytes()));
    assert_eq!(keys, by_rank);
    for line in &lines {
        let fields: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["key", "code", "reason", "at"]);
        assert!(line["reason"].as_str().is_some_and(|reason| reason.len() > 5), "{line}");
        // Nothing, another encoding, a root of another type: no place says more than the file.
        let is_whole = line["code"] == "empty" || line["reason"].as_str().unwrap().contains("not UTF-8 text");
        let has_place = line["at"].as_str().is_some_and(|at| !at.is_empty());
        assert_eq!(has_place, !is_whole && !line["key"].as_str().unwrap().starts_with("root_"), "{line}");
    }

    let check = |key: &str, expected: &str| assert_eq!(rejects(&dir)[key].1, expected, "{key}");
    check("truncated.json", "line 18 column 20");
    check("latin1.json", "byte 81");
    check("missing_actions.json", "socialized_context.socialized_context[0].actions");
    check("story_operator.json", "story, character 14");
}

#[test]
fn a_byte_order_mark_is_accepted() {
    let marked = format!("\u{feff}{}", record(7));
    let dir = prepare_all([marked.clone(), format!("\u{feff}{marked}"), "\u{feff}".to_owned()]);
    assert!(dir.texts(&case(0))[1].ends_with("Agent2 opened door 7. It was open."));
    assert_eq!(codes(&dir)[&case(1)], "json_syntax");
    assert_eq!(codes(&dir)[&case(2)], "empty");
}

#[test]
fn text_of_any_kind_arrives_unchanged() {
    let odd = "NUL \0 separator \u{2028} RTL \u{202e}שלום\u{202c} NFD e\u{301} not \u{e9}, 👩\u{200d}👩\u{200d}👧 \
               <b>&amp;</b> <|eot_id|> {story}{context} \\n \\u0041 \" ' / \t\r\n \u{7f} \u{feff} \u{fffd}";
    let mut odd_record = record(0);
    odd_record["story"] = format!("So: {odd}").into();
    odd_record["socialized_context"] = json!({
        "agents_names": [odd],
        "socialized_context": [
            { "timestep": odd, "state": odd, "observations": { odd: odd }, "actions": { odd: odd } },
        ],
    });
    let text = odd_record.to_string();
    // The same record, everything but ASCII escaped.
    let escaped: String = text
        .chars()
        .map(|character| match character {
            ' '..='~' => character.to_string(),
            _ => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect();
    let dir = prepare_all([text, escaped]);

    for key in [case(0), case(1)] {
        assert!(dir.texts(&key)[1].ends_with(&format!("\n\nSo: {odd}")), "{key}");
        assert_eq!(context(&dir, &key), odd_record["socialized_context"], "{key}");
    }
    assert_eq!(dir.texts(&case(0)), dir.texts(&case(1)));
    assert_eq!(dir.manifest()["counts"]["warnings"]["special_tokens"], 2);
    let outcome = dir.prepare(&[]).expect(0);
    assert!(
        outcome.stderr.contains("2 records with special tokens such as <|eot_id|>"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_depth_bomb_is_rejected_at_once() {
    let many = 100_000;
    let inside = |field: &str, value: String| {
        record(0).to_string().replacen('{', &format!("{{\"{field}\":{value},"), 1)
    };
    let story = |text: String| {
        let mut bomb = record(0);
        bomb["story"] = text.into();
        bomb.to_string()
    };
    let closed = |open: &str, close: &str| format!("{}{}", open.repeat(many), close.repeat(many));
    let bombs = [
        ("[".repeat(many), "too_deep"),
        ("{\"a\":".repeat(many), "too_deep"),
        (closed("[", "]"), "too_deep"),
        (inside("extra", closed("[", "]")), "too_deep"),
        (inside("extra", format!("{}0{}", "{\"a\":".repeat(many), "}".repeat(many))), "too_deep"),
        (story(format!("{}'", "[".repeat(many))), "story_literal"),
        (story(format!("{}'", "(".repeat(many))), "story_literal"),
        (story(closed("[", "]")), "story_literal"),
        (story(closed("(", ")")), "story_literal"),
    ];
    for (bomb, code) in bombs {
        let start = Instant::now();
        let dir = prepare_all([bomb.clone()]);
        let took = start.elapsed();
        assert_eq!(codes(&dir)[&case(0)], code, "{}", &bomb[..20]);
        assert!(took < Duration::from_secs(1), "{}…: {took:?}", &bomb[..20]);
    }
}

#[test]
fn a_story_is_what_pythons_literal_eval_gives_or_prose_or_a_list() {
    let stories = [
        (json!(r#"['Mia left.', "She's back."]"#), "Mia left. She's back."),
        (json!("('Mia left.', 'It rained.',)"), "Mia left. It rained."),
        (json!("['Mia left.', u'A', r'\\d', U'B', R'\\n']"), "Mia left. A \\d B \\n"),
        (json!("['''Mia\n\"left\"''', \"\"\"It's\nover.\"\"\"]"), "Mia\n\"left\" It's\nover."),
        (json!(r"['\x41\u00e9\U0001f600\101\n\t\\\'']"), "Aé😀A\n\t\\'"),
        (json!("['Mia \\\nleft.']"), "Mia left."),
        (json!(" [\n 'a', # why [ ]\n 'b',\n]"), "a b"),
        (json!("[Scene 1] Mia left."), "[Scene 1] Mia left."),
        (json!("(Mia left.)"), "(Mia left.)"),
        (json!("[open('pwned', 'w')]"), "[open('pwned', 'w')]"),
        (json!("[I'm 'here']"), "[I'm 'here']"),
        (json!("Mia left [the room], (or so) it seemed."), "Mia left [the room], (or so) it seemed."),
        (json!("  Two  blanks. "), "  Two  blanks. "),
        (json!(["Mia left.", "['x']"]), "Mia left. ['x']"),
    ];
    let with_story = |(story, _): &(Value, &str)| {
        let mut told = record(0);
        told["story"] = story.clone();
        told.to_string()
    };
    let dir = prepare_all(stories.iter().map(with_story));
    for (place, (story, expected)) in stories.iter().enumerate() {
        let texts = dir.texts(&case(place));
        let (_, told) = texts[1].split_once("\n\n").unwrap();
        assert_eq!(told, *expected, "{story}");
    }
}

#[test]
fn a_story_literal_is_never_evaluated() {
    let stories = [
        "[f'{1}']",
        "[b'Mia']",
        "['a', open('pwned', 'w')]",
        "['a' if __import__('os').system('touch pwned') else 'b']",
        "['Mia' 'left.']",
        "['Mia'\n 'left.']",
        " nan ",
        "array(['Mia left.'], dtype=object)",
        "b'Mia left.'",
        "['a' + 'b']",
        "['a'.upper()]",
        "['a' % 1]",
        "['a', 3]",
        "['None']",
        "['a', ['b']]",
        "['a', 'b'",
        "['a', 'b",
        "['a'] and more",
        "[]",
        "('a')",
        "['\\N{BULLET}']",
        "['\\ud800']",
    ];
    let with_story = |story: &&str| {
        let mut told = record(0);
        told["story"] = json!(story);
        told.to_string()
    };
    let dir = prepare_all(stories.iter().map(with_story));
    let rejects = rejects(&dir);
    for (place, story) in stories.iter().enumerate() {
        let (code, at) = &rejects[&case(place)];
        assert_eq!(code, "story_literal", "{story}");
        assert!(at.starts_with("story, character "), "{story}: {at}");
    }
    assert!(!dir.exists("pwned"));
}

/// `/a/0/b` as rejects write it: `a[0].b`.
fn field_path(pointer: &str) -> String {
    let steps = pointer.split('/').skip(1).map(|step| match step.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        Err(_) => format!(".{step}"),
    });
    steps.collect::<String>().trim_start_matches('.').to_owned()
}

#[test]
fn a_missing_key_is_named_with_its_path() {
    let pointers = [
        "/story",
        "/question",
        "/answer",
        "/socialized_context",
        "/socialized_context/agents_names",
        "/socialized_context/socialized_context",
        "/socialized_context/socialized_context/0/state",
        "/socialized_context/socialized_context/0/observations",
        "/socialized_context/socialized_context/0/actions",
    ];
    let without = |pointer: &&str| {
        let mut lacking = record(1);
        let (holder, key) = pointer.rsplit_once('/').unwrap();
        lacking.pointer_mut(holder).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        lacking.to_string()
    };
    let dir = prepare_all(pointers.iter().map(without));
    let reasons: BTreeMap<String, String> = dir
        .json_lines("out/rejects.jsonl")
        .iter()
        .map(|line| (line["key"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap().to_owned()))
        .collect();
    for (place, pointer) in pointers.iter().enumerate() {
        let key = pointer.rsplit('/').next().unwrap();
        assert_eq!(rejects(&dir)[&case(place)], ("missing_key".to_owned(), field_path(pointer)));
        assert!(reasons[&case(place)].contains(&format!("`{key}`")), "{}", reasons[&case(place)]);
    }
}

#[test]
fn a_wrong_type_is_named_with_its_path() {
    let context = "/socialized_context/socialized_context";
    let cases = [
        ("/story".to_owned(), json!(3)),
        ("/story".to_owned(), json!({"a": "b"})),
        ("/question".to_owned(), json!(null)),
        ("/answer".to_owned(), json!(["here"])),
        ("/is_correct".to_owned(), json!("yes")),
        ("/socialized_context".to_owned(), json!("text")),
        ("/socialized_context/agents_names".to_owned(), json!("Agent1")),
        ("/socialized_context/agents_names/0".to_owned(), json!(1)),
        (context.to_owned(), json!({})),
        (format!("{context}/0"), json!("step")),
        (format!("{context}/0/timestep"), json!(1.0)),
        (format!("{context}/0/timestep"), json!(true)),
        (format!("{context}/0/state"), json!(null)),
        (format!("{context}/0/observations"), json!("none")),
        (format!("{context}/0/observations/Agent1"), json!(1)),
        (format!("{context}/0/actions"), json!(null)),
        (format!("{context}/0/actions/Agent1"), json!(["none"])),
    ];
    let with = |(pointer, value): &(String, Value)| {
        let mut wrong = record(1);
        *wrong.pointer_mut(pointer).unwrap() = value.clone();
        wrong.to_string()
    };
    let dir = prepare_all(cases.iter().map(with));
    for (place, (pointer, value)) in cases.iter().enumerate() {
        assert_eq!(
            rejects(&dir)[&case(place)],
            ("wrong_type".to_owned(), field_path(pointer)),
            "{pointer}: {value}"
        );
    }
}

#[test]
fn a_failed_generation_is_rejected() {
    let with = |key: &str| {
        let mut empty = record(1);
        empty["socialized_context"][key] = json!([]);
        empty.to_string()
    };
    let dir = prepare_all([with("agents_names"), with("socialized_context")]);
    let codes = codes(&dir);
    assert_eq!((codes[&case(0)].as_str(), codes[&case(1)].as_str()), ("no_agents", "no_steps"));
}

#[test]
fn a_number_is_carried_exactly_or_rejected() {
    let with_timestep =
        |number: &str| record(0).to_string().replace("\"timestep\":\"0\"", &format!("\"timestep\":{number}"));
    let exact = ["18446744073709551615", "-9223372036854775808", "9007199254740993", "0", "-1"];
    let out_of_range = ["18446744073709551616", "-9223372036854775809", "1e400", "-1e400"];
    let records = exact.iter().map(|number| with_timestep(number));
    let dir = prepare_all(records.chain(out_of_range.iter().map(|number| with_timestep(number))));
    for (place, number) in exact.iter().enumerate() {
        assert_eq!(context(&dir, &case(place))["socialized_context"][0]["timestep"], *number);
    }
    for (place, number) in out_of_range.iter().enumerate() {
        assert_eq!(codes(&dir)[&case(exact.len() + place)], "number_range", "{number}");
    }
}

#[test]
fn a_key_given_twice_matters_only_where_it_is_used() {
    let text = record(0).to_string();
    let twice = |key: &str| {
        let once = format!("\"{key}\":");
        assert!(text.contains(&once));
        text.replacen(&once, &format!("{once}\"first\",{once}"), 1)
    };
    let unused = text.replacen('{', r#"{"extra":{"a":1,"a":2,"story":[{"a":1,"a":1}]},"#, 1);
    let used = ["answer", "agents_names", "state", "Agent0"];
    let dir = prepare_all(used.iter().map(|key| twice(key)).chain([unused]));
    for (place, key) in used.iter().enumerate() {
        let (code, at) = &rejects(&dir)[&case(place)];
        assert_eq!(code, "duplicate_key");
        assert!(at.ends_with(key), "{at}");
    }
    assert_eq!(context(&dir, &case(used.len()))["agents_names"], json!(["Agent0"]));
}

#[test]
fn a_lone_surrogate_never_becomes_a_character() {
    let text = record(0).to_string();
    let in_story = |escape: &str| text.replacen("Agent0 opened", &format!("Agent0 {escape} opened"), 1);
    let in_key = |escape: &str| text.replacen('{', &format!("{{\"extra\":[{{\"{escape}\":1}}],"), 1);
    let lone = ["\\ud800", "\\udc00", "\\ud83d\\ud83d\\ude00", "\\ude00\\ud83d", "\\ud83dx"];
    let records = lone.iter().flat_map(|escape| [in_story(escape), in_key(escape)]);
    let dir = prepare_all(records.chain([in_story("\\ud83d\\ude00")]));
    for place in 0..lone.len() * 2 {
        assert_eq!(codes(&dir)[&case(place)], "lone_surrogate", "{}", lone[place / 2]);
    }
    assert!(dir.texts(&case(lone.len() * 2))[1].contains("Agent0 😀 opened"));
}

#[test]
fn a_record_is_taken_up_to_the_limit_and_not_a_byte_beyond() {
    let dir = Dir::new();
    dir.corpus(3);
    let length = std::fs::metadata(dir.path("corpus/2.json")).unwrap().len();
    dir.write("corpus/2.json", format!("{} ", record(2)));
    let limit = length.to_string();
    dir.prepare(&["--max-rejects", "1", "--max-record-bytes", &limit]).expect(0);
    assert_eq!(codes(&dir), BTreeMap::from([("2.json".to_owned(), "too_large".to_owned())]));
    let limit = (length + 1).to_string();
    dir.prepare(&["--strict", "--max-record-bytes", &limit]).expect(0);
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    let dir = Dir::new();
    dir.corpus(2);
    let huge = File::create(dir.path("corpus/huge.json")).unwrap();
    // Holes take no room on the disk. Reading a TiB of them would take minutes, and keeping it no machine can.
    huge.set_len(1 << 40).or_else(|_| huge.set_len(1 << 30)).unwrap();
    let start = Instant::now();
    dir.prepare(&["--max-rejects", "1", "--max-record-bytes", "1MiB"]).expect(0);
    assert_eq!(codes(&dir)["huge.json"], "too_large");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_field_of_three_megabytes_arrives_whole() {
    let mut large = record(0);
    let state = "Mia is \"here\". ".repeat(200_000);
    large["socialized_context"]["socialized_context"][0]["state"] = json!(state);
    let dir = prepare_all([large.to_string()]);
    assert_eq!(context(&dir, &case(0))["socialized_context"][0]["state"], json!(state));
}

#[test]
fn an_agent_item_is_split_at_its_first_colon() {
    let with = |items: Value| {
        let mut listed = record(1);
        listed["socialized_context"]["socialized_context"][0]["actions"] = items;
        listed.to_string()
    };
    let dir = prepare_all([
        with(json!(["Agent1 :  says: \"12:30\" ", "Bo:"])),
        with(json!(["Agent1: a", "Agent1 : b"])),
        with(json!(["Agent1: a", "nothing"])),
        with(json!([": a"])),
    ]);
    let actions = &context(&dir, &case(0))["socialized_context"][0]["actions"];
    assert_eq!(*actions, json!({"Agent1": "says: \"12:30\"", "Bo": ""}));
    let codes = codes(&dir);
    assert_eq!(codes[&case(1)], "repeated_agent");
    assert_eq!([&codes[&case(2)], &codes[&case(3)]], ["agent_item", "agent_item"]);
}

#[test]
fn an_item_of_a_list_belongs_to_the_longest_name_it_begins_with() {
    let with = |names: Value, items: Value| {
        let mut listed = record(1);
        let context = &mut listed["socialized_context"];
        context["agents_names"] = names;
        context["socialized_context"][0]["actions"] = items;
        // The names behind the steps, too.
        let names = context.as_object_mut().unwrap().shift_remove("agents_names").unwrap();
        let first = listed.to_string();
        listed["socialized_context"]["agents_names"] = names.clone();
        let last = listed.to_string();
        listed = serde_json::from_str(&first).unwrap();
        let steps = listed["socialized_context"]["socialized_context"].clone();
        listed["socialized_context"] = json!({ "agents_names": names, "socialized_context": steps });
        [listed.to_string(), last]
    };
    let colons = json!(["Dr: Who", "Dr", "Mia"]);
    let items = json!([" Dr: Who : says: hi ", "Dr: Whom", "Mia : x", "Stranger: a: b"]);
    let expected = json!({ "Dr: Who": "says: hi", "Dr": "Whom", "Mia": "x", "Stranger": "a: b" });
    let plain = with(json!(["Dr", "Mia "]), json!(["Dr: Who: hi", "Mia : x"]));
    let dir = prepare_all(with(colons, items).into_iter().chain(plain));
    for place in 0..2 {
        assert_eq!(context(&dir, &case(place))["socialized_context"][0]["actions"], expected);
    }
    let expected = json!({ "Dr": "Who: hi", "Mia": "x" });
    for place in 2..4 {
        assert_eq!(context(&dir, &case(place))["socialized_context"][0]["actions"], expected);
    }
}

#[test]
fn accepted_oddities_are_counted_as_warnings() {
    let with = |pointer: &str, value: Value| {
        let mut odd = record(1);
        *odd.pointer_mut(&format!("/socialized_context{pointer}")).unwrap() = value;
        odd.to_string()
    };
    let with_story = |story: &str| {
        let mut odd = record(1);
        odd["story"] = json!(story);
        odd.to_string()
    };
    let step = "/socialized_context/0";
    let dir = prepare_all([
        with(&format!("{step}/observations"), json!({})),
        with(&format!("{step}/actions"), json!({"Agent1": "none", "Stranger": "none"})),
        with(&format!("{step}/actions/Agent1"), json!("[SAME AS STATE] <same_as_state />")),
        with(&format!("{step}/actions/Agent1"), json!("[SAME AS STATE]")),
        with(&format!("{step}/state"), json!("<|im_end|>")),
        with("/agents_names", json!(["Agent1", "<|x|>"])),
        with_story("[Scene 1] Ada came."),
        with_story(" (Ada enters.) Bo left.\0"),
        // The brackets are those of the text, not of the list.
        with_story("['[Scene 1] Ada came.']"),
        with_story("['Ada\\x00 came.']"),
        with_story("Ada ca\u{fffd}me."),
        with(&format!("{step}/state"), json!("\0")),
        with(&format!("{step}/state"), json!("a\u{fffd}")),
        record(1).to_string().replace("\"here\"", r#""\ufffd \u0000""#),
    ]);
    assert_eq!(
        dir.manifest()["counts"]["warnings"],
        json!({
            "agent_missing_from_step": 2, "agent_not_in_names": 1, "mixed_tags": 1, "special_tokens": 2,
            "bracketed_prose": 2, "nul_characters": 4, "replacement_characters": 3,
        })
    );
    let named = |flags: &[&str]| -> Vec<(String, String)> {
        let document = dir.prepare(&[flags, &["--json"]].concat()).expect(0).json();
        let text = |of: &Value| of.as_str().unwrap().to_owned();
        document["warned_records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|named| (text(&named["key"]), text(&named["kind"])))
            .collect()
    };
    let all = named(&["-v"]);
    let kinds = [
        (0, "agent_missing_from_step"),
        (1, "agent_not_in_names"),
        (2, "mixed_tags"),
        (4, "special_tokens"),
        (5, "agent_missing_from_step"),
        (5, "special_tokens"),
        (6, "bracketed_prose"),
        (7, "bracketed_prose"),
        (7, "nul_characters"),
        (9, "nul_characters"),
        (10, "replacement_characters"),
        (11, "nul_characters"),
        (12, "replacement_characters"),
        (13, "nul_characters"),
        (13, "replacement_characters"),
    ];
    let mut expected: Vec<(String, String)> =
        kinds.iter().map(|(place, kind)| (case(*place), (*kind).to_owned())).collect();
    expected.sort();
    let mut found = all.clone();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(named(&[]), all[..5], "the first by their keys");
    let mut grouped = named(&["--group-by", "agents", "-v"]);
    grouped.sort();
    assert_eq!(grouped, expected, "named once in two passes");
    let stderr = dir.prepare(&["-v"]).expect(0).stderr;
    for (key, kind) in &all {
        assert!(stderr.contains(&format!("\n  {key}: {kind}\n")), "{key}: {stderr}");
    }
    let stderr = dir.prepare(&[]).expect(0).stderr;
    assert!(stderr.contains(&format!("and {} more (-v names them)", all.len() - 5)), "{stderr}");
    let texts = dir.texts(&case(6));
    assert!(texts[1].ends_with("\n\n[Scene 1] Ada came."), "{texts:?}");
    let stderr = dir.prepare(&[]).expect(0).stderr;
    for words in [
        "2 records with an agent missing from a step",
        "1 record with an agent not in agents_names",
        "1 record mixing [SAME AS …] and <same_as… /> tags",
        "2 records with special tokens",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
}

#[test]
fn wrong_answers_are_kept_and_told_or_skipped_on_request() {
    let dir = Dir::new();
    dir.corpus(10);
    let mut wrong = record(3);
    wrong["is_correct"] = json!(false);
    dir.write("corpus/3.json", wrong.to_string());
    let mut silent = record(4);
    silent.as_object_mut().unwrap().remove("is_correct");
    dir.write("corpus/4.json", silent.to_string());

    let stderr = dir.prepare(&["--strict"]).expect(0).stderr;
    assert!(stderr.contains("1 of them with is_correct: false (--only-correct leaves them out)"), "{stderr}");
    let counts = &dir.manifest()["counts"];
    assert_eq!((&counts["accepted"], &counts["skipped"]), (&json!(10), &json!(0)));
    assert_eq!(counts["is_correct"], json!({ "true": 8, "false": 1, "missing": 1 }));

    let stderr = dir.prepare(&["--strict", "--only-correct"]).expect(0).stderr;
    assert!(stderr.contains("1 with is_correct: false skipped"), "{stderr}");
    let counts = &dir.manifest()["counts"];
    assert_eq!(
        (&counts["accepted"], &counts["skipped"], &counts["rejected"]),
        (&json!(9), &json!(1), &json!(0))
    );
    assert_eq!(counts["is_correct"], json!({ "true": 8, "false": 1, "missing": 1 }));
    assert!(dir.read("out/rejects.jsonl").is_empty());
    let kept = [dir.keys("train"), dir.keys("val")].concat();
    assert!(kept.contains(&"4.json".to_owned()) && !kept.contains(&"3.json".to_owned()), "{kept:?}");
}

#[test]
fn without_an_accepted_record_every_code_is_counted_and_nothing_published() {
    let dir = Dir::new();
    dir.write("corpus/0.json", "{");
    dir.write("corpus/1.json", "");
    dir.write("corpus/2.json", "{} {}");
    let outcome = dir.prepare(&["--max-rejects", "100%", "--json"]).expect(3);

    let document = outcome.json();
    assert_eq!((&document["ok"], &document["exit"]), (&json!(false), &json!(3)));
    assert_eq!(document["error"]["code"], "rejects");
    assert_eq!(document["rejected_by_code"], json!({ "empty": 1, "json_syntax": 2 }));
    assert!(outcome.stderr.contains("empty 1, json_syntax 2"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("rejects-failed.jsonl"), "{}", outcome.stderr);
    assert_eq!(dir.json_lines("out/rejects-failed.jsonl").len(), 3);
    assert_eq!(dir.tree("out").len(), 1, "the reasons are all there is");

    dir.corpus(2).write("corpus/2.json", record(2).to_string());
    dir.prepare(&[]).expect(0);
    assert!(!dir.exists("out/rejects-failed.jsonl"));
}

#[test]
fn over_the_limit_the_old_result_stays_until_a_run_succeeds() {
    let dir = Dir::new();
    dir.corpus(19).write("corpus/bad.json", "{");
    dir.prepare(&[]).expect(0);
    let old = dir.tree("out");

    // One of twenty is the five per cent that a run bears; two of twenty are not.
    dir.write("corpus/18.json", "{");
    let outcome = dir.prepare(&[]).expect(3);
    assert!(
        outcome.stderr.contains("2 of 20 records are rejected, and the limit is 5%"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stdout.is_empty());
    let failed = dir.json_lines("out/rejects-failed.jsonl");
    assert_eq!(failed.len(), 2);
    std::fs::remove_file(dir.path("out/rejects-failed.jsonl")).unwrap();
    assert!(dir.tree("out") == old, "the old result has changed");

    for limit in [&["--strict"][..], &["--max-rejects", "1"], &["--max-rejects", "9.99%"]] {
        dir.prepare(limit).expect(3);
        assert!(dir.tree("out").len() == old.len() + 1, "{limit:?}");
    }
    for limit in ["2", "10%"] {
        dir.prepare(&["--max-rejects", limit]).expect(0);
        assert!(!dir.exists("out/rejects-failed.jsonl"));
        assert_eq!(dir.json_lines("out/rejects.jsonl"), failed);
    }
}

#[test]
fn a_corpus_without_records_is_an_error_that_names_what_is_there() {
    let dir = Dir::new();
    dir.write("corpus/0.jsonl", record(0).to_string());
    dir.write("corpus/.git/0.json", record(0).to_string());
    let outcome = dir.prepare(&["--json"]).expect(3);
    assert!(outcome.stderr.contains("no record in `corpus`"), "{}", outcome.stderr);
    assert_eq!(outcome.json()["error"]["code"], "nothing_listed");
    check_not_read(&outcome, &[(".git", "hidden"), ("0.jsonl", "container")]);
    assert!(outcome.json()["error"]["hint"].as_str().unwrap().contains("--containers"));
    assert!(!dir.exists("out"));
    dir.prepare(&["--containers", "--val-ratio", "0"]).expect(0);
}

/// Holds what a run with `--json` names as not read, by its keys, against `expected`: in the document and
/// on stderr.
#[track_caller]
fn check_not_read(outcome: &Outcome, expected: &[(&str, &str)]) {
    let document = outcome.json();
    let named: Vec<Value> = expected.iter().map(|(key, kind)| json!({ "key": key, "kind": kind })).collect();
    assert_eq!(document["not_read"], json!(named));
    let mut by_kind = BTreeMap::<&str, u64>::new();
    expected.iter().for_each(|(_, kind)| *by_kind.entry(kind).or_default() += 1);
    assert_eq!(document["not_read_by_kind"], json!(by_kind));
    for (key, kind) in expected {
        let line = format!("  {key}: {kind}");
        assert!(outcome.stderr.lines().any(|said| said == line), "{line}: {}", outcome.stderr);
    }
}

#[test]
fn hidden_and_tool_made_names_are_passed_over_and_named() {
    let dir = Dir::new();
    dir.corpus(10).prepare(&[]).expect(0);
    let without = dir.tree("out");
    // Records that would be accepted, records that would be rejected, and no records.
    for hidden in [".git/a/0.json", "__MACOSX/0.json", ".x.json", "sub/.cache/y.json", "sub/..json"] {
        dir.write(format!("corpus/{hidden}"), record(3).to_string());
    }
    dir.write("corpus/._0.json", "Mac OS X");
    dir.write("corpus/.DS_Store", "");
    let outcome = dir.prepare(&["--json", "-v", "--strict"]).expect(0);
    let hidden = [".DS_Store", "._0.json", ".git", ".x.json", "__MACOSX", "sub/..json", "sub/.cache"];
    check_not_read(&outcome, &hidden.map(|key| (key, "hidden")));
    assert_eq!(outcome.json()["published"], "unchanged");
    assert!(dir.tree("out") == without, "the result has changed");
    assert_eq!(dir.manifest()["counts"]["not_regular"], 0);
}

#[test]
fn what_a_source_or_a_list_names_is_read_though_it_is_hidden() {
    let dir = Dir::new();
    for number in 0..10 {
        dir.write(format!(".corpus/{number}.json"), record(number).to_string());
    }
    dir.write(".more/.x.json", record(10).to_string());
    dir.write(".more/__MACOSX/0.json", record(11).to_string());
    dir.write("list", ".more/.x.json\n.more/__MACOSX\n");
    dir.ctxtune(["prepare", ".corpus", "--files-from", "list", "-o", "out", "--no-sync"]).expect(0);
    let keys = [dir.keys("train"), dir.keys("val")].concat();
    assert_eq!(keys.len(), 12);
    for key in [".corpus/3.json", ".more/.x.json", "__MACOSX/0.json"] {
        assert!(keys.iter().any(|found| found == key), "{key}: {keys:?}");
    }
}

#[test]
fn what_is_not_read_is_counted_and_five_of_it_named() {
    let dir = Dir::new();
    dir.corpus(10);
    for number in 0..7 {
        dir.write(format!("corpus/notes/{number}.txt"), "no record");
    }
    for name in ["a.JSON", "b.json.gz", "c.jsonl"] {
        dir.write(format!("corpus/{name}"), record(0).to_string());
    }
    let outcome = dir.prepare(&["--json"]).expect(0);
    let document = outcome.json();
    assert_eq!(document["not_read_by_kind"], json!({ "container": 1, "other ending": 9 }));
    let named = document["not_read"].as_array().unwrap();
    let keys: Vec<&str> = named.iter().map(|name| name["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a.JSON", "b.json.gz", "c.jsonl", "notes/0.txt", "notes/1.txt"]);
    let said = |outcome: &Outcome| {
        outcome
            .stderr
            .lines()
            .filter(|line| line.ends_with(": other ending") || line.ends_with(": container"))
            .count()
    };
    assert_eq!(said(&outcome), 5, "{}", outcome.stderr);
    let verbose = dir.prepare(&["--json", "-v"]).expect(0);
    assert_eq!((said(&verbose), verbose.json()["not_read"].as_array().unwrap().len()), (10, 10));
}

#[test]
fn an_output_directory_inside_the_corpus_is_named_as_not_read() {
    let dir = Dir::new();
    dir.corpus(10);
    let run = || dir.ctxtune(["prepare", "corpus", "-o", "corpus/out", "--no-sync", "--json"]).expect(0);
    run();
    check_not_read(&run(), &[("out", "output directory")]);
}

/// The command in the reason for refusing `key`, its file being `file`.
fn command_for(dir: &Dir, key: &str, file: &str, new: &str) -> String {
    let rejects = dir.json_lines("out/rejects-failed.jsonl");
    let reject = rejects.iter().find(|reject| reject["key"] == key).unwrap_or_else(|| panic!("{key}"));
    let reason = reject["reason"].as_str().unwrap();
    let command = reason.rsplit('`').nth(1).unwrap_or_else(|| panic!("no command in {reason}"));
    let command = command.replace("FILE", file);
    command.replace("NEW.jsonl", new).replace("NEW", new)
}

#[test]
fn another_layout_is_named_with_the_command_that_makes_records_of_it() {
    let jq = std::process::Command::new("jq").arg("--version").output();
    if !jq.is_ok_and(|output| output.status.success()) {
        return crate::support::skip("jq", "jq is not here");
    }
    let records: Vec<Value> = (0..10).map(record).collect();
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let indented: String = records.iter().map(|record| format!("{record:#}\n")).collect();
    let one_a_line: Vec<String> = records.iter().map(Value::to_string).collect();
    let code = |code: &str| code.to_owned();
    for (content, source, key, expected) in [
        (json!(records).to_string(), "all.json", "all.json", code("wrong_type")),
        (json!({ "n": 1, "data": records }).to_string(), "all.json", "all.json", code("missing_key")),
        (
            json!({ "a": records[..5], "b": records[5..] }).to_string(),
            "x.json",
            "x.json",
            code("missing_key"),
        ),
        (lines, "lines.json", "lines.json", code("json_syntax")),
        (indented.clone(), "indented.json", "indented.json", code("json_syntax")),
        (format!("[\n{}\n]\n", one_a_line.join(",\n")), "list.jsonl", "#3", code("json_syntax")),
        (json!(records).to_string(), "list.jsonl", "#0", code("wrong_type")),
        (indented, "indented.jsonl", "#0", code("json_syntax")),
        (format!("{:#}", json!(records)), "all.jsonl", "#1", code("json_syntax")),
    ] {
        let dir = Dir::new();
        dir.write(source, &content);
        dir.ctxtune(["prepare", source, "-o", "out", "--no-sync"]).expect(3);
        let rejects = dir.json_lines("out/rejects-failed.jsonl");
        let reject = rejects.iter().find(|reject| reject["key"] == key).unwrap();
        assert_eq!(reject["code"], *expected, "{source}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command_for(&dir, key, source, "new.jsonl")]).current_dir(dir.path(""));
        Outcome::of(shell).expect(0);
        dir.ctxtune(["prepare", "new.jsonl", "-o", "out", "--no-sync", "--strict"]).expect(0);
        assert_eq!(dir.manifest()["counts"]["accepted"], 10, "{source}: {content}");
    }
}

#[test]
fn text_in_place_of_a_value_and_a_misspelt_key_are_named_with_their_commands() {
    let jq = std::process::Command::new("jq").arg("--version").output();
    if !jq.is_ok_and(|output| output.status.success()) {
        return crate::support::skip("jq", "jq is not here");
    }
    let context = record(1)["socialized_context"].clone();
    let with = |context: Value| {
        let mut changed = record(1);
        changed["socialized_context"] = context;
        changed
    };
    let mut misspelt = context.clone();
    let names = misspelt.as_object_mut().unwrap().shift_remove("agents_names").unwrap();
    misspelt["agent_names"] = names;
    let mut encoded_steps = context.clone();
    encoded_steps["socialized_context"] = json!(context["socialized_context"].to_string());
    let cases = [
        with(json!(context.to_string())),
        with(json!(format!("Sure! Here it is:\n```json\n{context:#}\n```\n"))),
        with(encoded_steps),
        with(misspelt),
        json!(record(1).to_string()),
    ];
    for case in cases {
        let dir = Dir::new();
        dir.write("corpus/x.json", case.to_string());
        dir.prepare(&["--val-ratio", "0"]).expect(3);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command_for(&dir, "x.json", "corpus/x.json", "fixed/x.json")]);
        std::fs::create_dir(dir.path("fixed")).unwrap();
        shell.current_dir(dir.path(""));
        Outcome::of(shell).expect(0);
        dir.ctxtune(["prepare", "fixed", "-o", "out", "--no-sync", "--val-ratio", "0"]).expect(0);
        let fixed = self::context(&dir, "x.json");
        assert_eq!(fixed["socialized_context"], context["socialized_context"], "{case}");
    }
}

#[test]
fn a_pointer_of_git_lfs_is_named() {
    let dir = Dir::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n";
    dir.write("corpus/0.json", pointer);
    dir.prepare(&[]).expect(3);
    let reject = &dir.json_lines("out/rejects-failed.jsonl")[0];
    assert_eq!(reject["code"], "json_syntax");
    assert!(reject["reason"].as_str().unwrap().contains("`git lfs pull`"), "{reject}");
    for name in ["x.jsonl", "x.tar", "x.jsonl.gz", "x.tzst"] {
        dir.write(name, pointer);
        let run = dir.ctxtune(["prepare", name, "-o", "out", "--json"]).expect(3);
        assert_eq!(run.json()["error"]["code"], "lfs_pointer", "{name}");
        assert!(run.json()["error"]["hint"].as_str().unwrap().contains("`git lfs pull`"));
    }
}

#[test]
fn a_source_of_another_kind_is_named_with_what_to_do() {
    let dir = Dir::new();
    for name in ["x.csv", "x.parquet", "x.zip", "x.json.gz", "x.JSON", "x.txt"] {
        dir.write(name, "");
    }
    let check = |source: &str, remedy: &str| {
        for arguments in [
            &["prepare", source, "-o", "out", "--json"][..],
            &["generate", source, "-o", "out", "--json", "--base-url", "http://127.0.0.1:9", "--model", "m"],
            &["score", source, source, "--json"],
        ] {
            let error = dir.ctxtune(arguments).expect(2).json()["error"].clone();
            assert!(error["hint"].as_str().unwrap().contains(remedy), "{arguments:?}: {error}");
            assert!(error["message"].as_str().unwrap().contains(source), "{arguments:?}: {error}");
        }
    };
    check("https://host/x.jsonl", "`curl -LO https://host/x.jsonl`");
    check("hf://datasets/me/tomi", "`hf download --repo-type dataset me/tomi --local-dir DIR`");
    check("x.csv", "read_csv");
    check("x.parquet", "read_parquet");
    check("x.zip", "`unzip x.zip -d DIR`");
    check("x.json.gz", "`gunzip x.json.gz`");
    check("x.JSON", "rename");
    check("x.txt", ".jsonl");
    // The same in a directory that holds nothing else.
    dir.write("list", "https://host/x.jsonl\n");
    let run = dir.ctxtune(["prepare", "--files-from", "list", "-o", "out", "--json"]).expect(2);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("curl -LO"));
    dir.write("corpus/x.parquet", "");
    let error = dir.prepare(&["--json"]).expect(3).json()["error"].clone();
    assert!(error["hint"].as_str().unwrap().contains("read_parquet(\"corpus/x.parquet\")"), "{error}");
}

/// The digest of the manifest's `keys_sha256`, from its definition.
fn digest_of_keys(keys: &[Vec<u8>]) -> String {
    let mut keys = keys.to_vec();
    keys.sort();
    let digest = keys.iter().fold(Sha256::new(), |digest, key| digest.chain_update(key).chain_update([0]));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_manifest_has_a_digest_of_the_keys() {
    let dir = Dir::new();
    dir.corpus(3).write("corpus/a/b.json", record(4).to_string());
    dir.prepare(&[]).expect(0);
    let keys = [&b"0.json"[..], b"1.json", b"2.json", b"a/b.json"].map(<[u8]>::to_vec);
    assert_eq!(dir.manifest()["keys_sha256"], digest_of_keys(&keys));
}

/// What only Unix has: links, pipes, names of any bytes, limits, permissions.
#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;
    use crate::support::{Tree, program, skip};

    #[test]
    fn what_is_no_regular_file_is_named_and_not_opened() {
        let dir = Dir::new();
        dir.corpus(3);
        let corpus = |name: &str| dir.path("corpus").join(name);
        for fifo in ["fifo.json", "fifo"] {
            assert!(Command::new("mkfifo").arg(corpus(fifo)).status().unwrap().success());
        }
        symlink("nowhere", corpus("dangling")).unwrap();
        let _listening = UnixListener::bind(corpus("socket.json")).unwrap();
        symlink("/dev/zero", corpus("zero.json")).unwrap();
        symlink("loop_b.json", corpus("loop_a.json")).unwrap();
        symlink("loop_a.json", corpus("loop_b.json")).unwrap();
        symlink("nowhere", corpus("dangling.json")).unwrap();
        dir.write("corpus/directory.json/inside.json", "{");
        dir.write("elsewhere/0.json", "{");
        symlink("../elsewhere", corpus("linked.json")).unwrap();
        symlink("../elsewhere", corpus("linked")).unwrap();
        symlink(".", corpus("self")).unwrap();
        dir.write("elsewhere/record", record(3).to_string());
        symlink("../elsewhere/record", corpus("link.json")).unwrap();

        let outcome = dir.prepare(&["--strict", "--json", "-v"]).expect(0);
        let expected = [
            ("dangling", "dangling link"),
            ("dangling.json", "dangling link"),
            ("directory.json", "directory"),
            ("fifo", "FIFO"),
            ("fifo.json", "FIFO"),
            ("linked", "linked directory"),
            ("linked.json", "linked directory"),
            ("loop_a.json", "link loop"),
            ("loop_b.json", "link loop"),
            ("self", "linked directory"),
            ("socket.json", "socket"),
            ("zero.json", "device"),
        ];
        check_not_read(&outcome, &expected);
        let counts = &dir.manifest()["counts"];
        assert_eq!((&counts["listed"], &counts["not_regular"]), (&json!(4), &json!(8)));
        assert!(dir.texts("link.json")[1].contains("door 3"));
    }

    /// Odd names and how a JSON string holds them.
    fn odd_names() -> Vec<(Vec<u8>, String)> {
        let long = format!("{}.json", "x".repeat(245));
        vec![
            (b"\xff\xc3\xa9\xfe.json".to_vec(), r#""\udcffé\udcfe.json""#.to_owned()),
            (b"new\nline.json".to_vec(), r#""new\nline.json""#.to_owned()),
            (b"esc\x1b[31m.json".to_vec(), r#""esc\u001b[31m.json""#.to_owned()),
            (b"-rf.json".to_vec(), r#""-rf.json""#.to_owned()),
            (b"tab\t\"quote\"\\.json".to_vec(), r#""tab\t\"quote\"\\.json""#.to_owned()),
            (b"surrogate\\udcff.json".to_vec(), r#""surrogate\\udcff.json""#.to_owned()),
            (long.clone().into_bytes(), format!("\"{long}\"")),
        ]
    }

    /// Writes a file of any name; `false` where the file system takes UTF-8 only.
    fn write_named(dir: &Dir, name: &[u8], content: &str) -> bool {
        std::fs::create_dir_all(dir.path("corpus")).unwrap();
        let written = std::fs::write(dir.path("corpus").join(OsStr::from_bytes(name)), content);
        assert!(written.is_ok() || str::from_utf8(name).is_err(), "{written:?}");
        written.is_ok()
    }

    #[test]
    fn a_record_of_any_name_converts() {
        let dir = Dir::new();
        let mut names = odd_names();
        names.retain(|(name, _)| write_named(&dir, name, &record(1).to_string()));
        dir.prepare(&["--strict"]).expect(0);

        let keys = dir.read("out/keys.tsv");
        let mut found: Vec<&str> = keys.lines().skip(1).map(|row| row.split('\t').nth(3).unwrap()).collect();
        let mut expected: Vec<&str> = names.iter().map(|(_, json)| json.as_str()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let names: Vec<Vec<u8>> = names.into_iter().map(|(name, _)| name).collect();
        assert_eq!(dir.manifest()["keys_sha256"], digest_of_keys(&names));
    }

    #[test]
    fn a_rejected_record_of_any_name_is_named() {
        let dir = Dir::new();
        let mut names = odd_names();
        names.retain(|(name, _)| write_named(&dir, name, "{"));
        dir.corpus(1).write("corpus/1.json", record(1).to_string());
        let outcome = dir.prepare(&["--max-rejects", "100%", "--dry-run", "--json"]).expect(0);
        assert_eq!(outcome.json()["rejects"].as_array().unwrap().len(), names.len());
        for reject in outcome.json()["rejects"].as_array().unwrap() {
            assert!(reject["key"].is_string(), "{reject}");
        }
        let said = outcome.stderr.lines().filter(|line| line.contains(": json_syntax: ")).count();
        assert_eq!(said, names.len(), "{}", outcome.stderr);

        dir.prepare(BEAR_ALL).expect(0);
        let rejects = dir.read("out/rejects.jsonl");
        for (_, json) in names {
            assert!(rejects.contains(&format!("{{\"key\":{json},\"code\":\"json_syntax\"")), "{rejects}");
        }
    }

    #[test]
    fn a_name_neither_commands_the_terminal_nor_forges_a_line() {
        let dir = Dir::new();
        dir.corpus(2);
        write_named(&dir, b"a\x1b[2J\x9b1m\nwrote     bad.json", "{");
        let mut misled = record(1);
        misled["socialized_context"]["socialized_context"][0]["actions"] =
            json!({ "Agent1\nwrote     at": 1 });
        dir.write("corpus/agent.json", misled.to_string());
        std::fs::create_dir(dir.path("corpus/d\x1b[2J\nwrote     directory.json")).unwrap();
        let stderr = dir.prepare(BEAR_ALL).expect(0).stderr;
        let begins = |line: &&str| line.starts_with("wrote");
        assert_eq!(stderr.lines().filter(begins).collect::<Vec<_>>().len(), 1, "{stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
    }

    #[test]
    fn a_name_that_is_not_utf8_is_no_trouble_where_it_is_passed_over() {
        let dir = Dir::new();
        dir.corpus(2);
        let name = dir.path("corpus").join(OsStr::from_bytes(b"\xff.json"));
        if std::fs::create_dir(name).is_err() {
            return skip("system", "this file system takes UTF-8 names only");
        }
        let outcome = dir.prepare(&["--json"]).expect(0);
        assert_eq!(outcome.json()["not_read"], json!([{ "key": "\\xff.json", "kind": "directory" }]));
        assert!(outcome.stderr.contains("directory"), "{}", outcome.stderr);
    }

    /// A result in `out` that a failing run must not touch.
    fn with_old_result() -> (Dir, Tree) {
        let dir = Dir::new();
        dir.corpus(10).prepare(&[]).expect(0);
        let old = dir.tree("out");
        dir.write("corpus/new.json", record(10).to_string());
        (dir, old)
    }

    /// Expects a run that failed to read `name`, saying `cause`, and that left `old` alone.
    #[track_caller]
    fn check_unreadable(dir: &Dir, old: &Tree, outcome: Outcome, name: &str, cause: &str) {
        let outcome = outcome.expect(1);
        let message = outcome.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(name) && message.contains(cause), "{message}");
        assert_eq!(outcome.json()["error"]["code"], "read");
        assert!(dir.tree("out") == *old, "the old result has changed");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_input_output_error_is_not_a_malformed_record() {
        let (dir, old) = with_old_result();
        // A regular file to `stat`, whose first page nobody can read.
        symlink("/proc/self/mem", dir.path("corpus/broken.json")).unwrap();
        let outcome = dir.prepare(&["--max-rejects", "100%", "--json"]);
        check_unreadable(&dir, &old, outcome, "corpus/broken.json", "Input/output error");
    }

    #[test]
    fn too_few_file_descriptors_fail_the_run_and_publish_nothing() {
        let (dir, old) = with_old_result();
        let mut failed_to_read = 0;
        for limit in 3..40 {
            let mut shell = Command::new("sh");
            shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit.to_string(), program()]);
            shell.args(["prepare", "corpus", "-o", "out", "--max-rejects", "100%", "--threads", "2"]);
            let outcome = Outcome::of({
                shell.current_dir(dir.path(""));
                shell
            });
            if outcome.code == Some(0) {
                assert!(failed_to_read > 0, "at {limit} all is well, and reading never failed");
                assert_eq!(dir.manifest()["counts"]["accepted"], 11);
                return;
            }
            let stderr = outcome.stderr.clone();
            // Below about five the program's own loader has no descriptor left, and speaks for itself.
            if stderr.contains("error: ") || stderr.contains("panicked") {
                outcome.expect(1);
            }
            failed_to_read += usize::from(stderr.contains("cannot read `corpus/"));
            assert!(dir.tree("out") == old, "at {limit} the old result has changed: {stderr}");
        }
        panic!("forty file descriptors are not enough");
    }

    /// Lets everybody into the directory, and gives the program run by somebody without privileges.
    fn unprivileged(dir: &Dir) -> Option<Command> {
        for place in ["", "out"] {
            std::fs::set_permissions(dir.path(place), PermissionsExt::from_mode(0o777)).unwrap();
        }
        let user = Command::new("id").arg("-u").output().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program()]);
        if user.stdout != b"0\n" {
            command = Command::new(program());
        } else if !Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program(), "--version"])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            skip("user", "root may read everything, and cannot become somebody else here");
            return None;
        }
        command.args(["prepare", "corpus", "-o", "out", "--max-rejects", "100%", "--json"]);
        command.current_dir(dir.path(""));
        Some(command)
    }

    #[test]
    fn a_forbidden_file_or_directory_is_not_a_malformed_record() {
        let (dir, old) = with_old_result();
        let forbidden = |name: &str, mode| {
            std::fs::set_permissions(dir.path(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        forbidden("corpus/new.json", 0o000);
        let Some(command) = unprivileged(&dir) else { return };
        check_unreadable(&dir, &old, Outcome::of(command), "corpus/new.json", "Permission denied");

        forbidden("corpus/new.json", 0o644);
        dir.write("corpus/below/0.json", record(0).to_string());
        forbidden("corpus/below", 0o000);
        let outcome = Outcome::of(unprivileged(&dir).unwrap());
        forbidden("corpus/below", 0o755);
        check_unreadable(&dir, &old, outcome, "corpus/below", "Permission denied");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_record_over_the_limit_is_read_one_byte_beyond_it() {
        let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
        if !works.is_ok_and(|status| status.success()) {
            return skip("strace", "strace is not here, or may not trace");
        }
        let dir = Dir::new();
        dir.corpus(2).write("corpus/large.json", " ".repeat(200_000));
        // One within the buffer a run begins with, one beyond it.
        for limit in [10_000, 100_000] {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-P", "corpus/large.json", "-o", "trace"]);
            strace.args(["-e", "trace=read,pread64,readv,mmap", program(), "prepare", "corpus", "-o", "out"]);
            strace.args(["--max-rejects", "1", "--max-record-bytes", &limit.to_string()]);
            strace.current_dir(dir.path(""));
            Outcome::of(strace).expect(0);
            let trace = dir.read("trace");
            let given = |line: &str| line.rsplit_once("= ").unwrap().1.parse::<u32>().unwrap();
            assert_eq!(trace.lines().map(given).sum::<u32>(), limit + 1, "{trace}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn large_records_do_not_add_up_in_memory() {
        let dir = Dir::new();
        let mut large = record(0);
        large["socialized_context"]["socialized_context"][0]["state"] = json!("x".repeat(3_000_000));
        dir.write("large", large.to_string());
        std::fs::create_dir(dir.path("corpus")).unwrap();
        for number in 0..30 {
            symlink("../large", dir.path(format!("corpus/{number}.json"))).unwrap();
        }
        // 90 MB of records in 80 MB of address space, which holds the program and its stacks too.
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 80000 && exec \"$0\" \"$@\"", program()]);
        shell.args(["prepare", "corpus", "-o", "out", "--no-sync", "--threads", "2"]);
        shell.env("MALLOC_ARENA_MAX", "1").current_dir(dir.path(""));
        Outcome::of(shell).expect(0);
        assert_eq!(dir.manifest()["train"]["records"], 27);
    }
}
