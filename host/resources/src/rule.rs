//! Content rules: a CEL expression over an event, compiled once, and the path of the events for which it is true
//! (pubsub-behaviour, section 5.6).
//!
//! Compiled by the readers of subscriptions, asked by the data plane for each event. The only module that names the CEL
//! library. An expression is the operator's or the app's and an event is anybody's: size, depth and work are bounded
//! before anything runs, and a panic of the library is an error. Absent on purpose: which rule comes first.

mod facts;
mod shape;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::{ExecutionError, Program, Value};

pub use facts::{Fact, Facts};
use shape::Shape;

/// Rules of one subscription.
pub(crate) const RULES_MAX: usize = 256;

/// Bytes of an expression.
const EXPRESSION_BYTES_MAX: usize = 4 * 1024;

/// Steps of one evaluation, each about as long as comparing two numbers: a fraction of a second in all.
const STEPS_MAX: u64 = 1_000_000;

/// Bytes that are searched or compared in the time of a step.
const BYTES_PER_STEP: u64 = 64;

/// One rule of a subscription.
#[derive(Clone)]
pub struct Rule {
    expression: String,
    path: String,
    /// `None`: always true.
    compiled: Option<Arc<Compiled>>,
}

struct Compiled {
    program: Program,
    shape: Shape,
}

impl Rule {
    /// Compiles a rule. Without an expression it is always true.
    ///
    /// # Errors
    /// It is no CEL expression, calls a function that CEL does not have, or is too large or too deep. The text says
    /// which.
    pub fn new(expression: &str, path: &str) -> Result<Self, String> {
        let expression = expression.trim();
        let compiled = if expression.is_empty() { None } else { Some(Arc::new(compile(expression)?)) };
        Ok(Self { expression: expression.to_owned(), path: path.to_owned(), compiled })
    }

    /// The expression, without the space around it; empty: always true.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Where an event goes for which it is true.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether its answer may depend on this attribute of the event. One that no rule looks at need not be parsed.
    #[must_use]
    pub fn looks_at(&self, attribute: &str) -> bool {
        self.compiled.as_ref().is_some_and(|compiled| compiled.shape.looks_at(attribute))
    }

    /// Whether it is true for an event.
    ///
    /// # Errors
    /// It cannot be told: an attribute is missing, a type does not fit, it is no boolean, it would take too long. The
    /// text says why and shows no value of the event.
    pub fn accepts(&self, facts: &Facts) -> Result<bool, String> {
        let Some(compiled) = &self.compiled else { return Ok(true) };
        let failed = |what: String| format!("the rule {} failed: {what}", crate::place::quoted(&self.expression));
        if compiled.shape.steps(facts) > STEPS_MAX {
            return Err(failed("it loops over more of this event than is allowed".to_owned()));
        }
        match catch_unwind(AssertUnwindSafe(|| compiled.program.execute(facts.context()))) {
            Ok(Ok(Value::Bool(accepted))) => Ok(accepted),
            Ok(Ok(other)) => Err(failed(format!("it gives a {}, not true or false", other.type_of()))),
            Ok(Err(error)) => Err(failed(reason(&error))),
            Err(_) => Err(failed("it cannot be evaluated".to_owned())),
        }
    }
}

/// Two rules with the same text are the same rule.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.path == other.path
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("expression", &self.expression).field("path", &self.path).finish_non_exhaustive()
    }
}

fn compile(expression: &str) -> Result<Compiled, String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("a rule of more than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let parsed = catch_unwind(|| Program::compile(expression)).map_err(|_| "no CEL expression".to_owned())?;
    let program = parsed.map_err(|errors| {
        let first = errors.errors.first().map(|error| error.msg.clone()).unwrap_or_default();
        format!("no CEL expression: {}", first.lines().next().unwrap_or_default())
    })?;
    let shape = Shape::of(program.expression())?;
    Ok(Compiled { program, shape })
}

/// Why an evaluation failed, without the values: they are the event's, and end up in log lines.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(_) => "an attribute or key is missing (guard it with has())".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("there is no {name} here, only event"),
        ExecutionError::NoSuchOverload(overload) => {
            format!("{} does not take {}", overload.function(), overload.argument_types().join(", "))
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number overflows".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::FunctionError { function, .. } => format!("{function} failed"),
        _ => "a value is not of the type that it needs".to_owned(),
    }
}

#[cfg(test)]
mod tests;
