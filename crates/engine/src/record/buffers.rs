//! The vectors of one record, left to the next one.
//!
//! Separate from the reader because of what a vector of borrowed texts makes awkward: it has to become a vector
//! of texts borrowed from somewhere else. Without this every record allocates and frees a dozen vectors, which
//! was 4,500 of 114,000 instructions.

use crate::record::context::{AgentText, Context, Step};
use crate::record::shape::Shape;

/// Vectors for what a record is made of, and for what its reader looks at on the way.
#[derive(Debug, Default)]
pub struct RecordBuffers<'a> {
    /// The keys of the record.
    pub record_keys: Vec<&'a str>,
    /// The keys of its context.
    pub context_keys: Vec<&'a str>,
    /// The agents of one list.
    pub agents: Vec<&'a str>,
    /// See [`Context::agents_names`].
    pub names: Vec<&'a str>,
    /// See [`Context::steps`].
    pub steps: Vec<Step<'a>>,
    /// The pairs of all steps.
    pub pairs: Vec<AgentText<'a>>,
    /// The step read last in full.
    pub shape: Shape<'a>,
}

impl<'a> RecordBuffers<'a> {
    /// The same vectors, empty, for a record that borrows from something else.
    pub fn emptied<'b>(self) -> RecordBuffers<'b> {
        RecordBuffers {
            record_keys: emptied(self.record_keys),
            context_keys: emptied(self.context_keys),
            agents: emptied(self.agents),
            names: emptied(self.names),
            steps: emptied(self.steps),
            pairs: emptied(self.pairs),
            shape: Shape { slots: emptied(self.shape.slots), ..Shape::default() },
        }
    }

    /// Takes back what `context` was made of.
    pub fn take_back(&mut self, context: Context<'a>) {
        (self.names, self.steps, self.pairs) = context.into_parts();
    }
}

/// `items` without its items, which may then be of another lifetime. It keeps its memory: a collected `IntoIter`
/// of the same size is the vector it came from. Were that to change, it would only be slower.
pub fn emptied<T, U>(mut items: Vec<T>) -> Vec<U> {
    items.clear();
    items.into_iter().map(|_| unreachable!("there are none")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_vector_keeps_its_memory() {
        let text = "a b c".to_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let (place, capacity) = (words.as_ptr(), words.capacity());
        let words: Vec<&'static str> = emptied(words);
        assert_eq!((words.as_ptr(), words.capacity(), words.len()), (place, capacity, 0));
    }
}
