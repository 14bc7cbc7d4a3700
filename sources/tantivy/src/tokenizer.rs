//! The tokenizer of search fields: exactly the words that every kind agrees on.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unisono_core::query::search::{Word, words};

/// Its name in the index.
pub(crate) const NAME: &str = "unisono_words";

/// Cuts text by [`words`].
#[derive(Clone, Default)]
pub(crate) struct Words;

/// The words of one text.
pub(crate) struct WordStream {
    rest: std::iter::Enumerate<std::vec::IntoIter<Word>>,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream {
        WordStream { rest: words(text).into_iter().enumerate(), token: Token::default() }
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let Some((position, word)) = self.rest.next() else { return false };
        self.token = Token {
            offset_from: word.start,
            offset_to: word.end,
            position,
            text: word.text,
            position_length: 1,
        };
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
