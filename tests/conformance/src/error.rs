//! How a test ends other than well.

use std::error::Error;
use std::fmt;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The engine did something else than what is wanted.
    Wrong(String),
    /// This machine cannot run the test; the sentence says what is missing.
    Skipped(String),
}

/// What a test, or a step of one, returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with this explanation.
    pub fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(text) | Self::Skipped(text) => f.write_str(text),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Fails the test with a formatted explanation unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::error::Failure::Wrong(format!($($text)+)));
        }
    };
}

/// Fails the test unless both sides are equal; the text says what they are.
#[macro_export]
macro_rules! same {
    ($got:expr, $wanted:expr, $($text:tt)+) => {
        // a `match`, so that temporaries of both sides live long enough
        match (&$got, &$wanted) {
            (got, wanted) => {
                if *got != *wanted {
                    return Err($crate::error::Failure::Wrong(format!("{}: wanted {wanted:?}, got {got:?}", format_args!($($text)+))));
                }
            }
        }
    };
}
