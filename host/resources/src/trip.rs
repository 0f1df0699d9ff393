//! When a circuit breaker trips: the part of CEL that its five counters need (pubsub-behaviour, section 10.3).
//!
//! Integers, doubles and booleans; `|| && !`, comparisons, arithmetic, `double()`, `int()`, parentheses. Kinds are checked
//! when the text is read, as CEL does, so what is wrong shows at start. Called by `raw::resiliency`, and by the data plane
//! after each failure.

use std::fmt;

/// The longest condition, bytes.
const TEXT_BYTES_MAX: usize = 1000;

/// Parentheses, signs and calls within each other.
const NESTING_MAX: usize = 32;

/// The names of the counters, in the order of [`Counts::all`].
const VARIABLES: [&str; 5] =
    ["requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures"];

/// What a breaker has counted since it last changed or was cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts begun.
    pub requests: u32,
    /// Attempts that succeeded.
    pub total_successes: u32,
    /// Attempts that failed.
    pub total_failures: u32,
    /// Successes since the last failure.
    pub consecutive_successes: u32,
    /// Failures since the last success.
    pub consecutive_failures: u32,
}

impl Counts {
    fn all(&self) -> [u32; 5] {
        let Self { requests, total_successes, total_failures, consecutive_successes, consecutive_failures } = *self;
        [requests, total_successes, total_failures, consecutive_successes, consecutive_failures]
    }
}

/// A condition over [`Counts`].
#[derive(Clone, PartialEq)]
pub struct Trip {
    text: String,
    condition: Expr,
}

// A literal is never NaN, so equality is whole.
impl Eq for Trip {}

/// The text, as it was written.
impl fmt::Debug for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Trip {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let mut parser = Parser { rest: text, nesting: 0 };
        let (kind, condition) = parser.either()?;
        if !parser.rest.trim_start().is_empty() {
            return Err(format!("{:?} is not understood", parser.rest.trim()));
        }
        match kind {
            Kind::Bool => Ok(Self { text: text.to_owned(), condition }),
            Kind::Int | Kind::Double => Err("is a number, not a condition".to_owned()),
        }
    }

    /// Whether it holds. One that cannot be worked out (a division by zero) does not, as for Dapr.
    #[must_use]
    pub fn is_met(&self, counts: &Counts) -> bool {
        self.condition.value(counts) == Some(Value::Bool(true))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Double,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Double(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Constant(Value),
    /// Which of [`VARIABLES`].
    Count(usize),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Converted(Kind, Box<Expr>),
    Both(Operator, Box<(Expr, Expr)>),
}

impl Expr {
    /// `None`: an error, such as a division by zero or an overflow.
    fn value(&self, counts: &Counts) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(*value),
            Self::Count(variable) => Some(Value::Int(i64::from(*counts.all().get(*variable)?))),
            Self::Not(inner) => match inner.value(counts)? {
                Value::Bool(value) => Some(Value::Bool(!value)),
                _ => None,
            },
            Self::Negative(inner) => match inner.value(counts)? {
                Value::Int(value) => Some(Value::Int(value.checked_neg()?)),
                Value::Double(value) => Some(Value::Double(-value)),
                Value::Bool(_) => None,
            },
            Self::Converted(kind, inner) => converted(*kind, inner.value(counts)?),
            Self::Both(operator, sides) => apply(*operator, sides.0.value(counts), sides.1.value(counts)),
        }
    }
}

fn converted(kind: Kind, value: Value) -> Option<Value> {
    match (kind, value) {
        (Kind::Double, Value::Int(value)) => Some(Value::Double(value as f64)),
        (Kind::Int, Value::Double(value)) if value.abs() < i64::MAX as f64 => Some(Value::Int(value as i64)),
        (Kind::Double, Value::Double(_)) | (Kind::Int, Value::Int(_)) => Some(value),
        _ => None,
    }
}

/// As CEL has it, `&&` and `||` have a value where one side decides, also when the other is an error.
fn apply(operator: Operator, left: Option<Value>, right: Option<Value>) -> Option<Value> {
    let decides = match operator {
        Operator::Or => true,
        Operator::And => false,
        _ => return compute(operator, left?, right?),
    };
    let decided = Some(Value::Bool(decides));
    if left == decided || right == decided { decided } else { left.and(right) }
}

fn compute(operator: Operator, left: Value, right: Value) -> Option<Value> {
    use Operator as O;
    let ordering = match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(&right),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(&right)?,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(&right),
        _ => return None,
    };
    let compared = match operator {
        O::Less => ordering.is_lt(),
        O::LessOrEqual => ordering.is_le(),
        O::Greater => ordering.is_gt(),
        O::GreaterOrEqual => ordering.is_ge(),
        O::Equal => ordering.is_eq(),
        O::NotEqual => ordering.is_ne(),
        _ => return arithmetic(operator, left, right),
    };
    Some(Value::Bool(compared))
}

fn arithmetic(operator: Operator, left: Value, right: Value) -> Option<Value> {
    use Operator as O;
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(Value::Int(match operator {
            O::Add => left.checked_add(right)?,
            O::Subtract => left.checked_sub(right)?,
            O::Multiply => left.checked_mul(right)?,
            O::Divide => left.checked_div(right)?,
            O::Remainder => left.checked_rem(right)?,
            _ => return None,
        })),
        (Value::Double(left), Value::Double(right)) => Some(Value::Double(match operator {
            O::Add => left + right,
            O::Subtract => left - right,
            O::Multiply => left * right,
            O::Divide => left / right,
            _ => return None,
        })),
        _ => None,
    }
}

type Typed = Result<(Kind, Expr), String>;

/// A reader by recursive descent: one function for each level of precedence.
struct Parser<'a> {
    rest: &'a str,
    nesting: usize,
}

impl Parser<'_> {
    /// Whether this comes next; if so it is passed.
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(token);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn either(&mut self) -> Typed {
        self.chain(&[("||", Operator::Or)], Self::all)
    }

    fn all(&mut self) -> Typed {
        self.chain(&[("&&", Operator::And)], Self::comparison)
    }

    fn comparison(&mut self) -> Typed {
        use Operator as O;
        let operators = [
            ("<=", O::LessOrEqual),
            (">=", O::GreaterOrEqual),
            ("==", O::Equal),
            ("!=", O::NotEqual),
            ("<", O::Less),
            (">", O::Greater),
        ];
        self.chain(&operators, Self::sum)
    }

    fn sum(&mut self) -> Typed {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::product)
    }

    fn product(&mut self) -> Typed {
        let operators = [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.chain(&operators, Self::unary)
    }

    /// Operands of one precedence, from left to right.
    fn chain(&mut self, operators: &[(&str, Operator)], operand: fn(&mut Self) -> Typed) -> Typed {
        let (mut kind, mut expr) = operand(self)?;
        while let Some((sign, operator)) = operators.iter().find(|(sign, _)| self.take(sign)) {
            let (right_kind, right) = operand(self)?;
            kind = result_kind(*operator, kind, right_kind)
                .ok_or_else(|| format!("{sign:?} does not stand between {} and {}", kind.name(), right_kind.name()))?;
            expr = Expr::Both(*operator, Box::new((expr, right)));
        }
        Ok((kind, expr))
    }

    fn unary(&mut self) -> Typed {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("is nested deeper than {NESTING_MAX}"));
        }
        let read = self.nested();
        self.nesting -= 1;
        read
    }

    fn nested(&mut self) -> Typed {
        if self.take("!") {
            return match self.unary()? {
                (Kind::Bool, inner) => Ok((Kind::Bool, Expr::Not(Box::new(inner)))),
                (kind, _) => Err(format!("\"!\" does not stand before {}", kind.name())),
            };
        }
        if self.take("-") {
            return match self.unary()? {
                (Kind::Bool, _) => Err("\"-\" does not stand before a condition".to_owned()),
                (kind, inner) => Ok((kind, Expr::Negative(Box::new(inner)))),
            };
        }
        if self.take("(") { self.parenthesised() } else { self.word() }
    }

    fn parenthesised(&mut self) -> Typed {
        let inner = self.either()?;
        if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) }
    }

    /// A literal, a counter, or a conversion.
    fn word(&mut self) -> Typed {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        match word {
            "" => return Err("something is missing in it".to_owned()),
            "true" | "false" => return Ok((Kind::Bool, Expr::Constant(Value::Bool(word == "true")))),
            "double" | "int" if self.take("(") => {
                let kind = if word == "int" { Kind::Int } else { Kind::Double };
                return match self.parenthesised()? {
                    (Kind::Bool, _) => Err(format!("{word}() takes a number")),
                    (_, inner) => Ok((kind, Expr::Converted(kind, Box::new(inner)))),
                };
            }
            _ => {}
        }
        if let Some(variable) = VARIABLES.iter().position(|name| *name == word) {
            return Ok((Kind::Int, Expr::Count(variable)));
        }
        if let Ok(number) = word.parse() {
            return Ok((Kind::Int, Expr::Constant(Value::Int(number))));
        }
        let number = word.parse().ok().filter(|_| word.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
        let number = number.filter(|number: &f64| number.is_finite());
        number
            .map(|number| (Kind::Double, Expr::Constant(Value::Double(number))))
            .ok_or_else(|| format!("{word} is none of {}", VARIABLES.join(", ")))
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bool => "a condition",
            Self::Int => "an int",
            Self::Double => "a double",
        }
    }
}

/// What comes of two operands. `None`: they do not go together; CEL mixes no ints with doubles.
fn result_kind(operator: Operator, left: Kind, right: Kind) -> Option<Kind> {
    use Operator as O;
    if left != right {
        return None;
    }
    match (operator, left) {
        (O::Or | O::And | O::Equal | O::NotEqual, Kind::Bool) => Some(Kind::Bool),
        (O::Or | O::And, _) | (_, Kind::Bool) | (O::Remainder, Kind::Double) => None,
        (O::Add | O::Subtract | O::Multiply | O::Divide | O::Remainder, kind) => Some(kind),
        _ => Some(Kind::Bool),
    }
}

#[cfg(test)]
mod tests;
