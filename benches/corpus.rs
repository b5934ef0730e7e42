//! Makes up records in the seed's format, for measuring and for nothing else.
//!
//! A record is a pure function of (shape, seed, index), so that two machines
//! measure the same bytes and a benchmark can assert its result. Names, rooms
//! and sentences are our own; escapes, quotes and non-ASCII text occur about as
//! often as in text written by a model. It must not use the library it serves
//! to measure.

#![allow(dead_code, reason = "each bench and example takes only its own part")]

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

/// How large a record is, and how much of it goes unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 8.6 KB on average, of which a line of 5.2 KB is made.
    Lean,
    /// 15.8 KB on average as in the published corpus: the context again inside
    /// `extra_info`, and a manual with a JSON schema twice.
    Real,
}

impl Shape {
    fn steps(self, dice: &mut Dice) -> usize {
        match self {
            Shape::Lean => 7 + dice.below(5),
            Shape::Real => 6 + dice.below(5),
        }
    }
}

/// One record as JSON text, indented by 2, without a final newline.
///
/// Odd indices are written in ASCII with `\u` escapes, even ones in UTF-8.
pub fn record(shape: Shape, seed: u64, index: u64) -> String {
    let mut dice = Dice::new(seed, index);
    let scene = Scene::act_out(&mut dice, shape);
    let manual = match shape {
        Shape::Lean => SHORT_MANUAL.to_owned(),
        Shape::Real => format!("{MANUAL_HEAD}{:#}{MANUAL_TAIL}", schema()),
    };
    let extra_info = match shape {
        Shape::Lean => format!("{EXTRA_NOTE}\n- {}", scene.story.join("\n- ")),
        Shape::Real => format!("### What happened, step by step\n{:#}\n\n{manual}", scene.context),
    };
    let mut context = scene.context;
    context["context_manual"] = Value::String(manual);

    let is_correct = dice.below(10) != 0;
    let given = if is_correct { scene.answer } else { scene.wrong_answer };
    let text = format!(
        "{:#}",
        json!({
            "story": python_list(&scene.story),
            "question": scene.question,
            "reasoning": format!("{} So the answer is {given}.", scene.reasoning),
            "answer": given,
            "correct_answer": scene.answer,
            "is_correct": is_correct,
            "socialized_context": context,
            "extra_info": extra_info,
        })
    );
    if index % 2 == 1 { in_ascii(&text) } else { text }
}

/// Writes `0.json` to `{count - 1}.json` into `dir`, which is made if missing,
/// and returns their bytes in total.
///
/// # Errors
/// Whatever the file system says.
pub fn write(dir: &Path, shape: Shape, seed: u64, count: u64) -> io::Result<u64> {
    fs::create_dir_all(dir)?;
    let mut bytes = 0;
    for index in 0..count {
        let text = record(shape, seed, index);
        fs::write(dir.join(format!("{index}.json")), &text)?;
        bytes += text.len() as u64;
    }
    Ok(bytes)
}

/// What one record tells: the same events as a story and as a context.
struct Scene {
    story: Vec<String>,
    context: Value,
    question: String,
    reasoning: String,
    answer: &'static str,
    wrong_answer: &'static str,
}

impl Scene {
    fn act_out(dice: &mut Dice, shape: Shape) -> Scene {
        let mut stage = Stage::new(dice, shape);
        let mut story = Vec::new();
        let mut steps = Vec::new();
        for timestep in 0..stage.shape.steps(dice) {
            let state = stage.state();
            let observations = stage.observations(dice);
            let (actor, action) = stage.act(dice);
            story.push(format!("{} {action}.", stage.agents[actor]));
            if dice.below(3) == 0 {
                story.push(format!("The {} stands in the {}.", stage.places[stage.kept], stage.rooms[0]));
            }
            steps.push(json!({
                "timestep": timestep.to_string(),
                "state": state,
                "observations": observations,
                "actions": stage.actions(actor, &action),
            }));
        }
        let Stage { agents, rooms, places, object, kept, .. } = stage;
        Scene {
            story,
            question: format!("Where will {} look for the {object}?", agents[0]),
            reasoning: format!("{} last saw the {object} before leaving the {}.", agents[0], rooms[0]),
            answer: places[kept],
            wrong_answer: places[(kept + 1) % places.len()],
            context: json!({ "agents_names": agents, "socialized_context": steps }),
        }
    }
}

/// Who is where, and where the object is kept: always in the first room.
struct Stage {
    shape: Shape,
    agents: Vec<&'static str>,
    rooms: Vec<&'static str>,
    places: Vec<&'static str>,
    object: &'static str,
    kept: usize,
    /// The room of each agent, if any.
    at: Vec<Option<usize>>,
    /// Who acted last, and in which room.
    last: Option<(usize, usize)>,
}

impl Stage {
    fn new(dice: &mut Dice, shape: Shape) -> Stage {
        let agents = 2 + usize::from(dice.below(4) != 0);
        Stage {
            shape,
            agents: dice.pick_some(&AGENTS, agents),
            rooms: dice.pick_some(&ROOMS, 2),
            places: dice.pick_some(&PLACES, 3),
            object: dice.pick(&OBJECTS),
            kept: 0,
            at: vec![None; agents],
            last: None,
        }
    }

    fn state(&self) -> String {
        let mut state = String::new();
        for (agent, room) in self.agents.iter().zip(&self.at) {
            if let Some(room) = *room {
                state += &format!("{agent} is in the {}. ", self.rooms[room]);
            }
        }
        state
            + &format!("The {} is in the {}, in the {}.", self.object, self.places[self.kept], self.rooms[0])
    }

    fn observations(&self, dice: &mut Dice) -> Map<String, Value> {
        let mut observations = Map::new();
        for (agent, name) in self.agents.iter().enumerate() {
            let observed = match self.last {
                Some((actor, room)) if actor == agent || self.at[agent] == Some(room) => {
                    self.observation(dice)
                }
                _ => "none".to_owned(),
            };
            observations.insert((*name).to_owned(), Value::String(observed));
        }
        observations
    }

    fn observation(&self, dice: &mut Dice) -> String {
        let seen = match self.shape {
            Shape::Lean => {
                format!("{} The {} is in the {}.", dice.pick(&SIGHTS), self.object, self.places[self.kept])
            }
            Shape::Real => format!("The {} is in the {}.", self.object, self.places[self.kept]),
        };
        let thought = dice.pick(&THOUGHTS).replace("OBJECT", self.object);
        match dice.below(6) {
            0 => "<same_as_state />".to_owned(),
            1 => "<same_as_last_action />".to_owned(),
            2 => format!("<same_as_last_action /> <mental_state>{thought}</mental_state>"),
            3 => format!("<same_as_last_action /> {seen} <mental_state>{thought}</mental_state>"),
            _ => format!("<same_as_last_action /> {seen}"),
        }
    }

    fn act(&mut self, dice: &mut Dice) -> (usize, String) {
        let actor = dice.below(self.agents.len());
        let Some(room) = self.at[actor] else {
            let room = dice.below(2);
            self.at[actor] = Some(room);
            self.last = Some((actor, room));
            return (actor, format!("{} the {}", dice.pick(&ARRIVALS), self.rooms[room]));
        };
        self.last = Some((actor, room));
        let action = match dice.below(6) {
            0 => {
                self.at[actor] = None;
                format!("{} the {}", dice.pick(&DEPARTURES), self.rooms[room])
            }
            1 | 2 if room == 0 => {
                self.kept = (self.kept + 1 + dice.below(2)) % self.places.len();
                format!("{} the {} into the {}", dice.pick(&MOVES), self.object, self.places[self.kept])
            }
            _ => dice.pick(&DOINGS).replace("OBJECT", self.object),
        };
        (actor, action)
    }

    fn actions(&self, actor: usize, action: &str) -> Map<String, Value> {
        let mut actions = Map::new();
        for (agent, name) in self.agents.iter().enumerate() {
            let done = if agent == actor { action } else { "none" };
            actions.insert((*name).to_owned(), Value::from(done));
        }
        actions
    }
}

/// The list as Python's `repr` prints it.
fn python_list(sentences: &[String]) -> String {
    let mut literal = String::from("[");
    for (nth, sentence) in sentences.iter().enumerate() {
        if nth > 0 {
            literal += ", ";
        }
        let quote = if sentence.contains('\'') && !sentence.contains('"') { '"' } else { '\'' };
        literal.push(quote);
        for character in sentence.chars() {
            match character {
                '\n' => literal += "\\n",
                '\\' => literal += "\\\\",
                _ if character == quote => literal.extend(['\\', quote]),
                _ => literal.push(character),
            }
        }
        literal.push(quote);
    }
    literal.push(']');
    literal
}

/// The same JSON text with `\u` escapes for all that is not ASCII, which can
/// only stand inside strings.
fn in_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii += &format!("\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// SplitMix64 (Steele, Lea, Flood 2014), one stream a record.
struct Dice {
    state: u64,
}

impl Dice {
    fn new(seed: u64, index: u64) -> Dice {
        let mut streams = Dice { state: seed };
        Dice { state: streams.roll() ^ index.wrapping_mul(0xd134_2543_de82_ef95) }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; the bias is far too small to matter here.
    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }

    /// `count` different words; there must be as many.
    fn pick_some(&mut self, words: &[&'static str], count: usize) -> Vec<&'static str> {
        let mut picked = Vec::with_capacity(count);
        while picked.len() < count {
            let word = self.pick(words);
            if !picked.contains(&word) {
                picked.push(word);
            }
        }
        picked
    }
}

/// A schema of the context, in size and shape like the ones real manuals hold.
fn schema() -> Value {
    let by_agent = |description: &str| {
        json!({
            "additionalProperties": { "type": "string" },
            "description": description,
            "title": "By agent",
            "type": "object"
        })
    };
    json!({
        "$defs": {
            "Step": {
                "properties": {
                    "timestep": {
                        "description": "Which moment this is. Usually a number counted from zero; a few words about the time of day are fine as well.",
                        "title": "Moment",
                        "type": "string"
                    },
                    "state": {
                        "description": "What is true of the world and of everybody in it at this moment, before anybody acts. While nothing has been told yet it is 'none'. Things nobody mentioned are left out rather than guessed.",
                        "title": "State of the world",
                        "type": "string"
                    },
                    "observations": by_agent("What reaches each agent at this moment, before anybody acts. Agents in different rooms perceive different things. (1) '<same_as_state />' says that the agent perceives the whole state. (2) '<same_as_last_action />' says that the agent perceived what was done a step ago; with several actors, '<same_as_last_action_1 />' and so on number them in the order of the names. (3) '<mental_state>...</mental_state>' wraps what goes on inside the agent and is hidden from all others. (4) 'none' says that nothing reaches the agent. Tags and ordinary sentences may follow one another, with a blank between them."),
                    "actions": by_agent("What each agent does at this moment. An agent who does nothing has 'none'. Words spoken aloud are quoted, so that others in the room may be said to have heard them.")
                },
                "required": ["timestep", "state", "observations", "actions"],
                "title": "Step",
                "type": "object"
            }
        },
        "properties": {
            "agents_names": {
                "description": "Everybody who takes part, each once",
                "items": { "type": "string" },
                "title": "Names",
                "type": "array"
            },
            "socialized_context": {
                "description": "The steps, in the order in which they happen; each is one moment of the little world.",
                "items": { "$ref": "#/$defs/Step" },
                "title": "Steps",
                "type": "array"
            },
            "context_manual": {
                "description": "This explanation, carried along so that a reader who has only the context can make sense of it.",
                "title": "Manual",
                "type": "string"
            }
        },
        "required": ["agents_names", "socialized_context", "context_manual"],
        "title": "Context",
        "type": "object"
    })
}

const MANUAL_HEAD: &str = "#### Manual\nThe context above follows this schema:\n";
const MANUAL_TAIL: &str = "\n#### Rules of this particular world\nRooms are closed: whoever is inside perceives everything that happens there, and nothing of what happens elsewhere. Whoever walks out stops perceiving the room at once. When an object and an agent are in one room, the observation says where the object is.";
const SHORT_MANUAL: &str = "#### Manual
Each step is one moment. The \"state\" holds before anybody acts, the \"observations\" say what reaches whom, the \"actions\" what is done then.
- '<same_as_state />': the agent perceives the whole state.
- '<same_as_last_action />': the agent perceived what was done a step ago; with several actors, '<same_as_last_action_1 />' and so on number them in the order of the names.
- '<mental_state>...</mental_state>': goes on inside the agent and is hidden from everybody else.
- 'none': nothing reaches the agent, or the agent does nothing.
Tags and ordinary sentences may follow one another, with a blank between them. Words spoken aloud are quoted, so that others in the room may be said to have heard them. Things nobody mentioned are left out rather than guessed.
#### Rules of this particular world
Rooms are closed: whoever is inside perceives everything that happens there, and nothing of what happens elsewhere. Whoever walks out stops perceiving the room at once. When an object and an agent are in one room, the observation says where the object is.
#### An example of one step
{
  \"timestep\": \"4\",
  \"state\": \"Ottoline is in the pantry. The sugar tongs are in the blue jug, in the pantry.\",
  \"observations\": {
    \"Ottoline\": \"<same_as_last_action /> The sugar tongs are in the blue jug. <mental_state>I will need them at five.</mental_state>\",
    \"Barnaby\": \"none\"
  },
  \"actions\": {
    \"Ottoline\": \"puts the sugar tongs into the apron pocket\",
    \"Barnaby\": \"none\"
  }
}
After this step only Ottoline knows where the sugar tongs are. Barnaby still believes them to be in the blue jug, since nothing that happens in the pantry reaches the yard; a question about his belief is answered accordingly.
Names, rooms and things are spelled exactly as in the story, accents included. Do not merge two events into one step and do not split one event into two; a sentence that only describes (\"The tap drips.\") belongs to the state of the step it stands in, and makes no step of its own. A step in which nobody acts is allowed at the end only, to show what everybody perceives last.";
const EXTRA_NOTE: &str = "The context was made from the story alone, without the question. It was then read again with the question, and the answer was compared with the \"gold\" one word by word.
#### The story, sentence by sentence";

const AGENTS: [&str; 40] = [
    "Abena", "Anselm", "Beatrix", "Bram", "Calla", "Corwin", "Dagny", "Desmond", "Elowen", "Fenn", "Greta",
    "Hollis", "Ilse", "Imran", "Jovan", "Juno", "Kestrel", "Lachlan", "Leocadia", "Maud", "Nadia", "Nikhil",
    "Odette", "Orson", "Petra", "Quill", "Rafferty", "Rosalind", "Sabine", "Tamsin", "Tobias", "Una",
    "Viggo", "Wren", "Yusuf", "Zelda", "Zoë", "Søren", "Łucja", "美咲",
];

const ROOMS: [&str; 16] = [
    "boathouse",
    "orangery",
    "print shop",
    "scullery",
    "signal box",
    "map room",
    "greenhouse",
    "loft",
    "tack room",
    "observatory",
    "bakehouse",
    "archive",
    "laundry",
    "vestry",
    "wheelhouse",
    "café",
];

const PLACES: [&str; 20] = [
    "wicker trunk",
    "biscuit tin",
    "hat box",
    "tool chest",
    "milk churn",
    "sewing basket",
    "top drawer",
    "coal scuttle",
    "violin case",
    "bread bin",
    "lead-lined box",
    "satchel",
    "flower press",
    "umbrella stand",
    "tea caddy",
    "filing cabinet",
    "cider barrel",
    "rolled-up rug",
    "doll's house",
    "grandfather clock",
];

const OBJECTS: [&str; 20] = [
    "brass compass",
    "quince",
    "tin whistle",
    "ledger",
    "wax seal",
    "chess queen",
    "torn photograph",
    "pocket barometer",
    "jar of figs",
    "skeleton key",
    "woollen mitten",
    "opera glasses",
    "seed packet",
    "porcelain thimble",
    "train ticket",
    "glass eye",
    "pepper mill",
    "bicycle lamp",
    "clay pipe",
    "jalapeño",
];

const ARRIVALS: [&str; 4] = ["walks into", "slips into", "comes back to", "hurries into"];
const DEPARTURES: [&str; 4] = ["walks out of", "slips away from", "is called out of", "runs from"];
const MOVES: [&str; 4] = ["puts", "hides", "drops", "quietly moves"];

const DOINGS: [&str; 12] = [
    "asks whether anybody has seen the OBJECT",
    "says \"I could swear the OBJECT was here a minute ago\"",
    "hums a tune and looks out of the window",
    "whispers \"don't tell the others\"",
    "takes a closer look at the OBJECT and puts it back",
    "doesn't care for the OBJECT at all",
    "pins a note to the door:\nback at four\nplease leave the OBJECT alone",
    "tidies the shelf by the window",
    "says “it’s not the OBJECT I came for”",
    "counts the tiles on the floor",
    "answers \"yes, if it's still there\"",
    "writes the word OBJECT on the blackboard",
];

const SIGHTS: [&str; 4] = [
    "Everything looks as it did before.",
    "The window is open and the lamp is lit.",
    "Somebody's coat hangs over the chair.",
    "There are muddy footprints on the floor.",
];

const THOUGHTS: [&str; 8] = [
    "I would rather have the OBJECT to myself.",
    "Nobody else knows about the OBJECT.",
    "That can't be the same OBJECT.",
    "I wonder who moved the OBJECT.",
    "I must remember to come back for the OBJECT.",
    "They said \"later\", but they meant never.",
    "The OBJECT is quite safe where it is.",
    "Something about this room has changed.",
];
