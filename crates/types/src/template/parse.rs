//! From a template's text to what it says.

use std::iter::Peekable;
use std::vec::IntoIter;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Show(Pipeline),
    /// The first branch whose condition holds; the last one may have none.
    If(Vec<(Option<Pipeline>, Vec<Piece>)>),
}

/// Commands; each takes the value of the one before as its last argument.
pub(super) type Pipeline = Vec<Command>;

/// An operand alone, or a function and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub head: Operand,
    pub arguments: Vec<Operand>,
}

/// Something with a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Int(i64),
    Bool(bool),
    Function(String),
    /// `.A.B`; empty: the whole context.
    Field(Vec<String>),
    /// `(…)`
    Group(Pipeline),
}

/// Why a text is not a template, or not one that Shoal reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `{{` without `}}`.
    #[error("template: expansion:1: unclosed action")]
    Unclosed,
    /// A character that nothing begins with.
    #[error("template: expansion:1: unexpected {0:?} in command")]
    Unexpected(String),
    /// A quote without its end, or with an escape that there is not.
    #[error("template: expansion:1: unterminated quoted string")]
    Quote,
    /// `{{}}`, or nothing after a `|`.
    #[error("template: expansion:1: missing value for command")]
    Missing,
    /// `if` without `end`.
    #[error("template: expansion:1: unexpected EOF")]
    NoEnd,
    /// `else` or `end` without `if`.
    #[error("template: expansion:1: unexpected {{{{{0}}}}}")]
    Stray(String),
    /// No function has that name.
    #[error("template: expansion:1: function {0:?} not defined")]
    Function(String),
    /// Go's templates have it, Shoal's do not.
    #[error("template: expansion:1: {0:?} is not supported by Shoal in service templates")]
    Unsupported(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Operand(Operand),
    Pipe,
    Open,
    Close,
}

const FUNCTIONS: [&str; 12] =
    ["and", "config", "env", "eq", "index", "join", "len", "ne", "not", "or", "print", "secret"];
const NOT_HERE: [&str; 18] = [
    "block", "break", "call", "continue", "define", "ge", "gt", "html", "js", "le", "lt", "nil", "printf", "println",
    "range", "slice", "template", "with",
];

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Piece>, ParseError> {
    let mut parts = split(text)?.into_iter().peekable();
    let pieces = block(&mut parts)?;
    match parts.next() {
        Some(Part::Action(stray)) => Err(ParseError::Stray(stray)),
        _ => Ok(pieces),
    }
}

enum Part {
    Text(String),
    Action(String),
}

/// Cuts a template into text and actions; `{{-` and `-}}` trim the text beside them, comments vanish.
fn split(mut text: &str) -> Result<Vec<Part>, ParseError> {
    let (mut parts, mut trim) = (Vec::new(), false);
    loop {
        let start = text.find("{{");
        let mut before = &text[..start.unwrap_or(text.len())];
        if trim {
            before = before.trim_start();
        }
        let Some(start) = start else {
            parts.push(Part::Text(before.to_owned()));
            return Ok(parts);
        };
        let mut action = &text[start + 2..];
        if action.starts_with("- ") {
            (before, action) = (before.trim_end(), &action[1..]);
        }
        parts.push(Part::Text(before.to_owned()));
        let end = action_end(action)?;
        text = &action[end + 2..];
        let inner = &action[..end];
        trim = inner.ends_with(" -");
        let inner = inner.strip_suffix(" -").unwrap_or(inner).trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            parts.push(Part::Action(inner.to_owned()));
        }
    }
}

/// Where the action ends; `}}` inside quotes does not count.
fn action_end(action: &str) -> Result<usize, ParseError> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in action.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if action[at..].starts_with("}}") => return Ok(at),
            None => {}
        }
    }
    Err(if quote.is_some() { ParseError::Quote } else { ParseError::Unclosed })
}

/// Pieces up to the end, or up to an `else` or `end` that belongs to the caller.
fn block(parts: &mut Peekable<IntoIter<Part>>) -> Result<Vec<Piece>, ParseError> {
    let mut pieces = Vec::new();
    while let Some(part) = parts.next_if(|part| !matches!(part, Part::Action(a) if is_boundary(a))) {
        pieces.push(match part {
            Part::Text(text) => Piece::Text(text),
            Part::Action(action) => match action.strip_prefix("if").filter(|rest| starts_apart(rest)) {
                Some(condition) => branches(condition, parts)?,
                None => Piece::Show(pipeline(&action)?),
            },
        });
    }
    Ok(pieces)
}

fn branches(condition: &str, parts: &mut Peekable<IntoIter<Part>>) -> Result<Piece, ParseError> {
    let mut branches = Vec::new();
    let mut condition = Some(pipeline(condition)?);
    loop {
        let last = condition.is_none();
        branches.push((condition, block(parts)?));
        let Some(Part::Action(boundary)) = parts.next() else { return Err(ParseError::NoEnd) };
        condition = match boundary.strip_prefix("else").map(str::trim_start) {
            None => return Ok(Piece::If(branches)),
            Some(_) if last => return Err(ParseError::Stray(boundary)),
            Some("") => None,
            Some(rest) => match rest.strip_prefix("if").filter(|rest| starts_apart(rest)) {
                Some(condition) => Some(pipeline(condition)?),
                None => return Err(ParseError::Stray(boundary)),
            },
        };
    }
}

fn is_boundary(action: &str) -> bool {
    action == "end" || action.strip_prefix("else").is_some_and(|rest| rest.is_empty() || starts_apart(rest))
}

fn starts_apart(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_whitespace() || c == '(')
}

fn pipeline(text: &str) -> Result<Pipeline, ParseError> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    let pipeline = commands(&mut tokens)?;
    if tokens.next().is_some() { Err(ParseError::Unexpected(")".into())) } else { Ok(pipeline) }
}

fn commands(tokens: &mut Peekable<IntoIter<Token>>) -> Result<Pipeline, ParseError> {
    let (mut pipeline, mut operands) = (Vec::new(), Vec::new());
    loop {
        match tokens.peek() {
            Some(Token::Operand(_) | Token::Open) => operands.push(operand(tokens)?),
            next => {
                let more = next == Some(&Token::Pipe);
                let mut whole = std::mem::take(&mut operands).into_iter();
                let head = whole.next().ok_or(ParseError::Missing)?;
                pipeline.push(Command { head, arguments: whole.collect() });
                if !more {
                    return Ok(pipeline);
                }
                tokens.next();
            }
        }
    }
}

fn operand(tokens: &mut Peekable<IntoIter<Token>>) -> Result<Operand, ParseError> {
    match tokens.next() {
        Some(Token::Operand(operand)) => Ok(operand),
        Some(Token::Open) => {
            let inner = commands(tokens)?;
            if tokens.next() != Some(Token::Close) {
                return Err(ParseError::Unclosed);
            }
            Ok(Operand::Group(inner))
        }
        _ => Err(ParseError::Missing),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' | '`' => {
                let length = quoted_length(rest, first)?;
                (Token::Operand(Operand::Text(unquote(&rest[1..length - 1], first)?)), length)
            }
            _ => {
                let length = rest.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(rest.len());
                (Token::Operand(word(&rest[..length])?), length)
            }
        };
        found.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

/// The length of the quoted text that `text` begins with, quotes included.
fn quoted_length(text: &str, quote: char) -> Result<usize, ParseError> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Ok(at + 1),
            _ => {}
        }
    }
    Err(ParseError::Quote)
}

fn unquote(inner: &str, quote: char) -> Result<String, ParseError> {
    let (mut text, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' if quote == '"' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('\\' | '"')) => c,
                _ => return Err(ParseError::Quote),
            },
            c => c,
        });
    }
    Ok(text)
}

fn word(word: &str) -> Result<Operand, ParseError> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    if let Some(path) = word.strip_prefix('.') {
        let path: Vec<String> = if path.is_empty() { vec![] } else { path.split('.').map(Into::into).collect() };
        return if path.iter().all(|name| is_name(name)) {
            Ok(Operand::Field(path))
        } else {
            Err(ParseError::Unexpected(word.into()))
        };
    }
    if let Ok(number) = word.parse() {
        return Ok(Operand::Int(number));
    }
    match word {
        "true" | "false" => Ok(Operand::Bool(word == "true")),
        _ if FUNCTIONS.contains(&word) => Ok(Operand::Function(word.into())),
        _ if NOT_HERE.contains(&word) || word.starts_with('$') => Err(ParseError::Unsupported(word.into())),
        _ if is_name(word) => Err(ParseError::Function(word.into())),
        _ => Err(ParseError::Unexpected(word.into())),
    }
}
