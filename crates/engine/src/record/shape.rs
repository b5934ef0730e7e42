//! The shape of a timestep: all of its text but the texts in it.
//!
//! The steps of a record nearly always differ in their texts only: the bytes between two texts (keys, agents,
//! indentation) are those of the step before. Comparing them costs a tenth of reading them. Equal bytes in
//! the same state of the reader mean the same: the same keys and agents in the same order, none of them twice.
//! At any difference the caller goes back and reads the step in full, and that is the shape from then on.
//!
//! A shape ends with its record. It decides nothing: what it takes, a full reading would take the same way.

use crate::record::context::Step;

/// How the step that was read last in full lies in the text of its record.
#[derive(Debug, Default)]
pub struct Shape<'a> {
    /// From its opening brace to behind its closing one.
    pub step: (usize, usize),
    /// Its texts, in their order; none where no other step may be compared with this one.
    pub slots: Vec<Slot<'a>>,
    /// Which of the step's pairs are observations.
    pub observations: (usize, usize),
    /// Which of them are actions.
    pub actions: (usize, usize),
}

/// A place for a text.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// From its first byte to its closing quote.
    pub text: (usize, usize),
    /// What it says.
    pub of: TextOf<'a>,
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
}
