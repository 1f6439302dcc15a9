//! What a template says about a context.

use super::parse::{Command, Operand, Piece, Pipeline};
use super::{Context, Lookup};
use crate::spec::Labels;

/// Why a template cannot be evaluated. Go's texts, as far as they make sense without Go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// There is no such field.
    #[error("template: expansion:1: executing \"expansion\" at <{at}>: can't evaluate field {field} in type {of}")]
    Field {
        /// The whole expression.
        at: String,
        /// The part that is not there.
        field: String,
        /// What it was looked for in.
        of: &'static str,
    },
    /// There is no such label.
    #[error("template: expansion:1: executing \"expansion\" at <{at}>: map has no entry for key \"{key}\"")]
    Key {
        /// The whole expression.
        at: String,
        /// The label.
        key: String,
    },
    /// A function got too few or too many arguments.
    #[error(
        "template: expansion:1: executing \"expansion\" at <{function}>: wrong number of args for {function}: got {got}"
    )]
    Count {
        /// The function.
        function: String,
        /// How many it got.
        got: usize,
    },
    /// A function got an argument that it can do nothing with.
    #[error("template: expansion:1: executing \"expansion\" at <{function}>: wrong type of argument for {function}")]
    Type {
        /// The function.
        function: String,
    },
    /// It is a function only where secrets and configs are expanded.
    #[error("template: expansion:1: function \"{0}\" not defined")]
    NotHere(String),
    /// What it looks up is not there.
    #[error(
        "template: expansion:1: executing \"expansion\" at <{function} \"{name}\">: error calling {function}: {reason}"
    )]
    Lookup {
        /// The function.
        function: String,
        /// What was looked up.
        name: String,
        /// Why it was not found.
        reason: String,
    },
    /// Something that is no function has arguments.
    #[error("template: expansion:1: executing \"expansion\": can't give argument to non-function")]
    NotAFunction,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    Map(Labels),
    Struct(&'static str, Vec<(&'static str, Value)>),
}

/// What a template speaks of.
struct Scope<'a> {
    root: Value,
    lookup: Option<&'a dyn Lookup>,
}

/// The text that `pieces` make of `context`, and of what `lookup` finds, where it may look.
pub(super) fn render(pieces: &[Piece], context: &Context, lookup: Option<&dyn Lookup>) -> Result<String, EvalError> {
    let mut text = String::new();
    show(pieces, &Scope { root: tree(context), lookup }, &mut text)?;
    Ok(text)
}

fn show(pieces: &[Piece], scope: &Scope<'_>, text: &mut String) -> Result<(), EvalError> {
    for piece in pieces {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Show(pipeline) => text.push_str(&evaluate(pipeline, scope)?.to_string()),
            Piece::If(branches) => {
                for (condition, inner) in branches {
                    if condition.as_ref().map_or(Ok(true), |c| evaluate(c, scope).map(|v| v.truth()))? {
                        show(inner, scope, text)?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

fn evaluate(pipeline: &Pipeline, scope: &Scope<'_>) -> Result<Value, EvalError> {
    let (first, rest) = pipeline.split_first().expect("the parser refuses empty pipelines");
    rest.iter().try_fold(command(first, None, scope)?, |piped, next| command(next, Some(piped), scope))
}

fn command(command: &Command, piped: Option<Value>, scope: &Scope<'_>) -> Result<Value, EvalError> {
    let mut arguments: Vec<_> = command.arguments.iter().map(|a| operand(a, scope)).collect::<Result<_, _>>()?;
    arguments.extend(piped);
    match &command.head {
        Operand::Function(name) => call(name, &arguments, scope),
        head if arguments.is_empty() => operand(head, scope),
        _ => Err(EvalError::NotAFunction),
    }
}

fn operand(operand: &Operand, scope: &Scope<'_>) -> Result<Value, EvalError> {
    match operand {
        Operand::Text(text) => Ok(Value::Text(text.clone())),
        Operand::Int(number) => Ok(Value::Int(*number)),
        Operand::Bool(value) => Ok(Value::Bool(*value)),
        Operand::Function(name) => call(name, &[], scope),
        Operand::Group(pipeline) => evaluate(pipeline, scope),
        Operand::Field(path) => {
            let at = || format!(".{}", path.join("."));
            path.iter().try_fold(scope.root.clone(), |value, name| value.field(name, at))
        }
    }
}

fn call(name: &str, arguments: &[Value], scope: &Scope<'_>) -> Result<Value, EvalError> {
    let count = || EvalError::Count { function: name.into(), got: arguments.len() };
    let kind = || EvalError::Type { function: name.into() };
    match (name, arguments) {
        ("secret" | "config" | "env", given) => {
            let lookup = scope.lookup.ok_or_else(|| EvalError::NotHere(name.into()))?;
            let [key] = given else { return Err(count()) };
            look_up(lookup, name, key.text().ok_or_else(kind)?).map(Value::Text)
        }
        ("print", all) => Ok(Value::Text(print(all))),
        ("join", []) | ("and" | "or", []) => Err(count()),
        ("join", texts) => {
            let texts: Option<Vec<&str>> = texts.iter().map(Value::text).collect();
            let texts = texts.ok_or_else(kind)?;
            Ok(Value::Text(texts[1..].join(texts[0])))
        }
        ("index", [map, keys @ ..]) => keys.iter().try_fold(map.clone(), |value, key| match (value, key) {
            (Value::Map(labels), Value::Text(key)) => Ok(Value::Text(labels.get(key).cloned().unwrap_or_default())),
            _ => Err(kind()),
        }),
        ("len", [Value::Text(text)]) => Ok(Value::Int(text.len().try_into().unwrap_or(i64::MAX))),
        ("len", [Value::Map(labels)]) => Ok(Value::Int(labels.len().try_into().unwrap_or(i64::MAX))),
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("and", all) => Ok(all.iter().find(|v| !v.truth()).or(all.last()).cloned().unwrap_or(Value::Bool(true))),
        ("or", all) => Ok(all.iter().find(|v| v.truth()).or(all.last()).cloned().unwrap_or(Value::Bool(false))),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let comparable = others.iter().all(|o| std::mem::discriminant(o) == std::mem::discriminant(first));
            if comparable { Ok(Value::Bool(others.contains(first))) } else { Err(kind()) }
        }
        ("ne", [first, other]) if std::mem::discriminant(first) == std::mem::discriminant(other) => {
            Ok(Value::Bool(first != other))
        }
        ("len", [_]) | ("ne", [_, _]) => Err(kind()),
        _ => Err(count()),
    }
}

fn look_up(lookup: &dyn Lookup, function: &str, name: &str) -> Result<String, EvalError> {
    let found = match function {
        "secret" => lookup.secret(name),
        "config" => lookup.config(name),
        _ => Ok(lookup.env(name)),
    };
    found.map_err(|reason| EvalError::Lookup { function: function.into(), name: name.into(), reason })
}

/// As Go's `Sprint`: a space between two operands of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && value.text().is_none() && values[at - 1].text().is_none() {
            text.push(' ');
        }
        text.push_str(&value.to_string());
    }
    text
}

fn tree(context: &Context) -> Value {
    let text = |text: &String| Value::Text(text.clone());
    let service = vec![
        ("ID", text(&context.service_id)),
        ("Name", text(&context.service_name)),
        ("Labels", Value::Map(context.service_labels.clone())),
    ];
    let platform = vec![("Architecture", text(&context.platform.architecture)), ("OS", text(&context.platform.os))];
    let node = vec![
        ("ID", text(&context.node_id)),
        ("Hostname", text(&context.hostname)),
        ("Platform", Value::Struct("template.Platform", platform)),
    ];
    let task = vec![("ID", text(&context.task_id)), ("Name", text(&context.task_name)), ("Slot", text(&context.slot))];
    Value::Struct(
        "template.Context",
        vec![
            ("Service", Value::Struct("template.Service", service)),
            ("Node", Value::Struct("template.Node", node)),
            ("Task", Value::Struct("template.Task", task)),
        ],
    )
}

// === impl Value ===

impl Value {
    fn field(self, name: &str, at: impl Fn() -> String) -> Result<Self, EvalError> {
        let of = self.kind();
        let missing = || EvalError::Field { at: at(), field: name.into(), of };
        match self {
            Self::Struct(_, fields) => {
                fields.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value).ok_or_else(missing)
            }
            Self::Map(mut labels) => {
                labels.remove(name).map(Self::Text).ok_or_else(|| EvalError::Key { at: at(), key: name.into() })
            }
            _ => Err(missing()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Int(_) => "int",
            Self::Bool(_) => "bool",
            Self::Map(_) => "map[string]string",
            Self::Struct(name, _) => name,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn truth(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(number) => *number != 0,
            Self::Bool(value) => *value,
            Self::Map(labels) => !labels.is_empty(),
            Self::Struct(..) => true,
        }
    }
}

impl std::fmt::Display for Value {
    /// As Go prints it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Map(labels) => {
                let pairs: Vec<_> = labels.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                write!(f, "map[{}]", pairs.join(" "))
            }
            Self::Struct(_, fields) => {
                let values: Vec<_> = fields.iter().map(|(_, v)| v.to_string()).collect();
                write!(f, "{{{}}}", values.join(" "))
            }
        }
    }
}
