//! What can be told of an expression without running it: which attributes it looks at, whether it knows its functions,
//! how deep it goes and how its work grows with the event. Called by `rule` once for each expression.

use std::collections::HashSet;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, SelectExpr, operators};

use super::{BYTES_PER_STEP, Facts};

/// Nesting of an expression: evaluation recurses, on the stack of whoever delivers.
const DEPTH_MAX: usize = 48;

/// Loops (`all`, `exists`, `exists_one`, `filter`, `map`) in one expression: work grows with a power of the event.
const LOOPS_MAX: u32 = 3;

/// The variable that rules are about.
const EVENT: &str = "event";

/// CEL's standard functions. The library looks for a function only when it is called; a misspelled one must not wait
/// for its first event.
const FUNCTIONS: [&str; 27] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "@in",
    "@not_strictly_false",
];

/// Operators whose work does not grow with what they are applied to.
const STEADY: [&str; 14] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
];

#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The attributes it selects by name.
    attributes: HashSet<String>,
    /// It uses the event as a whole.
    whole: bool,
    nodes: u64,
    loops: u32,
    /// A step of a loop may go through much of the event.
    scans: bool,
}

impl Shape {
    pub(super) fn of(expression: &IdedExpr) -> Result<Self, String> {
        let mut shape = Self::default();
        shape.walk(expression, 0)?;
        if shape.loops > LOOPS_MAX {
            return Err(format!("a rule with more than {LOOPS_MAX} loops"));
        }
        Ok(shape)
    }

    pub(super) fn looks_at(&self, attribute: &str) -> bool {
        self.whole || self.attributes.contains(attribute)
    }

    /// An upper bound of the steps for an event.
    pub(super) fn steps(&self, facts: &Facts) -> u64 {
        if self.loops == 0 {
            return 1;
        }
        let scan = if self.scans { 1 + facts.bytes() / BYTES_PER_STEP } else { 1 };
        (self.nodes + facts.nodes()).saturating_pow(self.loops).saturating_mul(scan)
    }

    fn walk(&mut self, node: &IdedExpr, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("a rule nested more than {DEPTH_MAX} deep"));
        }
        self.nodes += 1;
        match &node.expr {
            Expr::Ident(name) => self.whole |= is_event(name),
            Expr::Select(select) => return self.select(select, depth),
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(_) => self.loops += 1,
            Expr::Struct(made) => return Err(format!("there is no type {}", made.type_name)),
            Expr::Unspecified | Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => {}
        }
        children(&node.expr).into_iter().try_for_each(|child| self.walk(child, depth + 1))
    }

    fn select(&mut self, select: &SelectExpr, depth: usize) -> Result<(), String> {
        match &select.operand.expr {
            Expr::Ident(name) if is_event(name) => {
                self.attributes.insert(select.field.clone());
                Ok(())
            }
            _ => self.walk(&select.operand, depth + 1),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        let is_operator = name.contains('_');
        if !FUNCTIONS.contains(&name) && !is_operator {
            return Err(format!("CEL has no function {name}"));
        }
        let literal = |operand: &IdedExpr| matches!(operand.expr, Expr::Literal(_) | Expr::List(_));
        let against_literal =
            [operators::EQUALS, operators::NOT_EQUALS, operators::ADD].contains(&name) && call.args.iter().any(literal);
        self.scans |= !(STEADY.contains(&name) || name == operators::NOT_STRICTLY_FALSE || against_literal);
        Ok(())
    }
}

fn is_event(name: &str) -> bool {
    name.trim_start_matches('.') == EVENT
}

fn children(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(made) => {
            vec![&made.iter_range, &made.accu_init, &made.loop_cond, &made.loop_step, &made.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| pair(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn pair(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
