//! The shape of a timestep: all of its text but the texts in it.
//!
//! The steps of a record nearly always differ in their texts only: the bytes between two texts (keys, agents,
//! indentation) are those of the step before. Comparing them costs a tenth of reading them. Equal bytes in
//! the same state of the reader mean the same: the same keys and agents in the same order, none of them twice.
//! At any difference the caller goes back and reads the step in full, and that is the shape from then on.
//!
//! A shape ends with its record. It decides nothing: what it takes, a full reading would take the same way.

use crate::record::buffers::emptied;
use crate::record::context::{Step, Timestep};
use crate::record::scanner::Scanner;

/// How the step that was read last in full lies in the text of its record.
#[derive(Debug, Default)]
pub struct Shape<'a> {
    /// From its opening brace to behind its closing one.
    step: (usize, usize),
    /// Its texts, in their order; none where no other step may be compared with this one.
    slots: Vec<Slot<'a>>,
    /// Which of the step's pairs are which.
    observations: (usize, usize),
    actions: (usize, usize),
}

/// A place for a text.
#[derive(Debug, Clone, Copy)]
struct Slot<'a> {
    /// From its first byte to its closing quote.
    text: (usize, usize),
    of: TextOf<'a>,
}

/// What a text of a step says.
#[derive(Debug, Clone, Copy)]
pub enum TextOf<'a> {
    /// The name of the step.
    Timestep,
    /// The state.
    State,
    /// What this agent observes or does.
    Agent(&'a str),
}

impl<'a> Shape<'a> {
    /// A step begins at `start` that is read in full.
    pub fn begin(&mut self, start: usize) {
        self.step.0 = start;
        self.slots.clear();
    }

    /// It has a text from `start` up to its closing quote at `end`.
    pub fn push(&mut self, start: usize, end: usize, of: TextOf<'a>) {
        self.slots.push(Slot { text: (start, end), of });
    }

    /// It ends before `end`; its pairs are those from `first_pair` on.
    pub fn complete(&mut self, end: usize, first_pair: usize, step: &Step<'a>) {
        self.step.1 = end;
        let own = |(start, end)| (start - first_pair, end - first_pair);
        let (observations, actions) = step.ranges();
        (self.observations, self.actions) = (own(observations), own(actions));
    }

    /// Nothing is to be compared with the step.
    pub fn forget(&mut self) {
        self.slots.clear();
    }

    /// The same shape, empty, with its memory.
    pub fn emptied<'b>(self) -> Shape<'b> {
        Shape { slots: emptied(self.slots), ..Shape::default() }
    }
}

impl<'a> Scanner<'a> {
    /// Takes the step here, the one at `index`, if all that differs from the one with `shape` are its texts.
    /// Where it declines, some pairs and bytes may be taken.
    #[inline]
    pub fn repeated_step(&mut self, shape: &Shape<'a>, index: usize) -> Option<Step<'a>> {
        if shape.slots.is_empty() {
            return None;
        }
        self.next_byte()?;
        let first_pair = self.buffers.pairs.len();
        let (mut timestep, mut state) = (Timestep::Place(index), None);
        // The bytes from `at` on have to be those from `seen` on.
        let (mut at, mut seen) = (self.position, shape.step.0);
        for &Slot { text: (start, end), of } in &shape.slots {
            at = self.same_bytes(at, seen, start)?;
            let text = self.text_from(at)?;
            at = self.position - 1;
            match of {
                TextOf::Timestep => timestep = Timestep::Text(text),
                TextOf::State => state = Some(text),
                TextOf::Agent(agent) => self.buffers.pairs.push((agent, text)),
            }
            seen = end;
        }
        self.position = self.same_bytes(at, seen, shape.step.1)?;
        let all = |(start, end)| (first_pair + start, first_pair + end);
        let mut step = Step::new(timestep, state?, all(shape.observations), all(shape.actions));
        step.repeats_agents = true;
        Some(step)
    }

    /// The place behind the bytes at `at`, if they are those from `start` to `end`.
    #[inline]
    fn same_bytes(&self, at: usize, start: usize, end: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let behind = at + (end - start);
        (bytes.get(at..behind)? == bytes.get(start..end)?).then_some(behind)
    }
}
