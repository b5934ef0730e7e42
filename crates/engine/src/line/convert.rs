//! Writes a record as one training line, straight into the doubly escaped form, in one pass and without an
//! intermediate string. This is the hot path. It knows no files.

use crate::json::{Charset, escape_once, escape_raw, escape_twice};
use crate::line::frame::{Escaping, Frame};
use crate::line::template::{Form, Segment, Template};
use crate::record::{Context, Record, Text, Timestep};

/// The fixed pieces around the texts of a context, as Python's `json.dumps` sets them,
/// escaped for the inside of a JSON string.
#[derive(Debug, Clone)]
struct Punctuation {
    /// Before the first agent's name.
    open: Vec<u8>,
    /// Between two agents' names.
    name_separator: Vec<u8>,
    /// Between the last name and the first step's timestep.
    names_to_steps: Vec<u8>,
    /// Between two steps, up to the timestep's text.
    step_separator: Vec<u8>,
    /// Between the timestep's text and the state's.
    to_state: Vec<u8>,
    /// Between the state's text and the value of `observations`.
    to_observations: Vec<u8>,
    /// Between the value of `observations` and that of `actions`.
    to_actions: Vec<u8>,
    /// Around the pairs of one value.
    pairs_open: Vec<u8>,
    pairs_close: Vec<u8>,
    /// A value without pairs.
    pairs_empty: &'static [u8],
    /// Between two pairs.
    pair_separator: Vec<u8>,
    /// Between agent and text.
    agent_to_text: &'static [u8],
    /// Behind the last step's actions.
    close: Vec<u8>,
}

impl Punctuation {
    fn new(form: Form, indent: Option<u64>) -> Punctuation {
        let gap = |level: usize| match indent {
            Some(indent) => format!("\n{}", " ".repeat(level * indent as usize)),
            None => String::new(),
        };
        let next = |level: usize| match indent {
            Some(_) => format!(",{}", gap(level)),
            None => ", ".to_owned(),
        };
        let escaped = |text: String| {
            let mut out = Vec::new();
            escape_once(&mut out, &text);
            out
        };
        let step_open = format!("{{{}\"timestep\": \"", gap(3));
        let (open, close) = match form {
            Form::Object => ('{', '}'),
            Form::List => ('[', ']'),
        };
        Punctuation {
            open: escaped(format!("{{{}\"agents_names\": [{}\"", gap(1), gap(2))),
            name_separator: escaped(format!("\"{}\"", next(2))),
            names_to_steps: escaped(format!(
                "\"{}]{}\"socialized_context\": [{}{step_open}",
                gap(1),
                next(1),
                gap(2)
            )),
            step_separator: escaped(format!("{}}}{}{step_open}", gap(2).as_str(), next(2))),
            to_state: escaped(format!("\"{}\"state\": \"", next(3))),
            to_observations: escaped(format!("\"{}\"observations\": ", next(3))),
            to_actions: escaped(format!("{}\"actions\": ", next(3))),
            pairs_open: escaped(format!("{open}{}\"", gap(4))),
            pairs_close: escaped(format!("\"{}{close}", gap(3))),
            pairs_empty: if form == Form::Object { b"{}" } else { b"[]" },
            pair_separator: escaped(format!("\"{}\"", next(4))),
            agent_to_text: if form == Form::Object { br#"\": \""# } else { b": " },
            close: escaped(format!("{}}}{}]{}}}", gap(2), gap(1), gap(0))),
        }
    }
}

/// Writes records as training lines of one template.
#[derive(Debug, Clone)]
pub struct LineWriter<'t> {
    template: &'t Template,
    punctuation: Punctuation,
}

impl<'t> LineWriter<'t> {
    /// A writer for `template`.
    pub fn new(template: &'t Template) -> Self {
        let punctuation = Punctuation::new(template.context.form, template.context.indent);
        LineWriter { template, punctuation }
    }

    /// Appends the line of `record` to `out`, newline included.
    pub fn write_line(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for segment in &self.template.segments {
            match segment {
                Segment::Fixed(bytes) => out.extend_from_slice(bytes),
                Segment::Text(field) => escape_once(out, field.of(record)),
                Segment::Context => self.write_context(&record.context, out),
            }
        }
        out.push(b'\n');
    }

    /// Appends `context` as JSON text, escaped for the inside of a JSON string.
    fn write_context(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        match self.template.context.charset() {
            Charset::Utf8 => self.write_context_as::<Utf8>(context, out),
            Charset::Ascii => self.write_context_as::<Ascii>(context, out),
        }
    }

    fn write_context_as<E: Escaping>(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        let marks = &self.punctuation;
        let write_name = |out: &mut Vec<u8>, name: &str| {
            E::write(out, if context.has_plain_names { Text::Plain(name) } else { Text::Real(name) });
        };
        out.extend_from_slice(&marks.open);
        for (index, &name) in context.agents_names.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(&marks.name_separator);
            }
            write_name(out, name);
        }
        let mut frame = Frame::default();
        for (index, step) in context.steps.iter().enumerate() {
            out.extend_from_slice(if index == 0 { &marks.names_to_steps } else { &marks.step_separator });
            match step.timestep {
                Timestep::Text(text) => E::write(out, text),
                Timestep::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Timestep::Place(index) => out.extend_from_slice(index.to_string().as_bytes()),
            }
            let pairs = [context.observations(step), context.actions(step)];
            if step.repeats_agents && frame.repeat::<E>(out, step.state, pairs) {
                continue;
            }
            frame.begin(out);
            out.extend_from_slice(&marks.to_state);
            frame.text::<E>(out, step.state);
            for (before, pairs) in [&marks.to_observations, &marks.to_actions].into_iter().zip(pairs) {
                out.extend_from_slice(before);
                if pairs.is_empty() {
                    out.extend_from_slice(marks.pairs_empty);
                    continue;
                }
                for (index, &(agent, text)) in pairs.iter().enumerate() {
                    out.extend_from_slice(if index == 0 { &marks.pairs_open } else { &marks.pair_separator });
                    write_name(out, agent);
                    out.extend_from_slice(marks.agent_to_text);
                    frame.text::<E>(out, text);
                }
                out.extend_from_slice(&marks.pairs_close);
            }
            frame.end(out);
        }
        out.extend_from_slice(&marks.close);
    }
}

/// A context in UTF-8.
struct Utf8;

impl Escaping for Utf8 {
    #[inline(always)]
    fn write(line: &mut Vec<u8>, text: Text<'_>) {
        match text {
            // Most texts, and a copy is several times faster than a search.
            Text::Plain(text) => line.extend_from_slice(text.as_bytes()),
            Text::Raw(raw) => escape_raw(line, raw, Charset::Utf8),
            Text::Real(text) => escape_twice(line, text, Charset::Utf8),
        }
    }
}

/// A context in ASCII.
struct Ascii;

impl Escaping for Ascii {
    fn write(line: &mut Vec<u8>, text: Text<'_>) {
        match text {
            Text::Raw(raw) => escape_raw(line, raw, Charset::Ascii),
            Text::Plain(text) | Text::Real(text) => escape_twice(line, text, Charset::Ascii),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::example::Example;
    use crate::record::parser::with_single_record;

    const RECORD: &str = r#"{"story":"['Mia left.']","question":"Where?","answer":"box","socialized_context":{
        "agents_names":["Mia","Zoë"],"socialized_context":[
        {"timestep":"0","state":"a \"b\"\n","observations":{"Mia":"none","Zoë":"x"},"actions":{}},
        {"state":"😀","observations":["Mia: y"],"actions":["Mia: z"]}]}}"#;

    fn assistant(yaml_context: &str) -> String {
        let yaml = format!(
            "messages: [{{role: user, content: '{{story}}|{{question}}|{{answer}}'}}, {{role: assistant, content: '{{context}}'}}]\ncontext: {yaml_context}"
        );
        let template = Template::parse(&yaml, "t").unwrap();
        let mut line = Vec::new();
        with_single_record(RECORD.as_bytes(), |record| {
            LineWriter::new(&template).write_line(record, &mut line)
        })
        .unwrap();
        let example = Example::from_line(&line).unwrap();
        assert_eq!(example.messages[0].content, "Mia left.|Where?|box");
        example.messages[1].content.clone()
    }

    #[test]
    fn one_line_is_as_json_dumps_writes_it() {
        assert_eq!(
            assistant("{form: object}"),
            r#"{"agents_names": ["Mia", "Zoë"], "socialized_context": [{"timestep": "0", "state": "a \"b\"\n", "observations": {"Mia": "none", "Zoë": "x"}, "actions": {}}, {"timestep": "1", "state": "😀", "observations": {"Mia": "y"}, "actions": {"Mia": "z"}}]}"#
        );
    }

    #[test]
    fn an_indented_list_is_as_json_dumps_writes_it() {
        let expected = r#"{
  "agents_names": [
    "Mia",
    "Zo\u00eb"
  ],
  "socialized_context": [
    {
      "timestep": "0",
      "state": "a \"b\"\n",
      "observations": [
        "Mia: none",
        "Zo\u00eb: x"
      ],
      "actions": []
    },
    {
      "timestep": "1",
      "state": "\ud83d\ude00",
      "observations": [
        "Mia: y"
      ],
      "actions": [
        "Mia: z"
      ]
    }
  ]
}"#;
        assert_eq!(assistant("{form: list, indent: 2, ascii: true}"), expected);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_record() {
        let with_bom = [b"\xef\xbb\xbf", RECORD.as_bytes()].concat();
        assert_eq!(with_single_record(&with_bom, |record| record.story.to_owned()).unwrap(), "Mia left.");
    }
}
