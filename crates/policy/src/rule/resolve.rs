//! From parsed CEL to the resolved tree: names become indexes, types are checked, the rest is refused by name.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators};
use unisono_core::error::Result;
use unisono_core::time::duration;
use unisono_core::{Decimal, Entity, FieldType, Value};

use super::check::{Type, Typed, agree, parse_literal};
use super::expression::refuse_as_value;
use super::invalid;
use super::tree::{Arithmetic, Comparison, Node, TextTest};
use unisono_core::spelling::closest;

/// Deeper nesting is refused, so that evaluating never needs much stack.
const DEPTH_MAX: usize = 64;

/// The time at which a condition is decided.
const NOW: &str = "now";

const FUNCTIONS: [&str; 11] = [
    "has",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "exists",
    "all",
    "timestamp",
    "date",
    "decimal",
    "duration",
];

/// What a condition can name.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    /// What it calls the thing that it is about.
    pub(super) root: &'static str,
    /// What it calls a second one of the same entity, whose values come after those of the first.
    pub(super) other: Option<&'static str>,
    pub(super) entity: &'a Entity,
    /// Whether it may look at the clock.
    pub(super) clock: bool,
}

/// Resolves a whole condition.
pub(super) fn condition(names: Names<'_>, expression: &IdedExpr) -> Result<Node> {
    let mut resolver = Resolver { names, elements: Vec::new(), depth: 0 };
    let root = resolver.resolve(expression)?;
    root.ty
        .require(&Type::Boolean, "a condition")
        .map_err(|e| e.hint("compare it with something"))?;
    Ok(root.node)
}

/// Resolves a value, which may name elements as the test of an `exists` does.
pub(super) fn value(
    names: Names<'_>,
    elements: Vec<(String, Type)>,
    expression: &IdedExpr,
) -> Result<Typed> {
    let mut resolver = Resolver { names, elements, depth: 0 };
    let root = resolver.resolve(expression)?;
    refuse_as_value(&root.ty)?;
    Ok(root)
}

struct Resolver<'a> {
    names: Names<'a>,
    /// Name and type of the variables of the enclosing `exists` and `all`, outermost first.
    elements: Vec<(String, Type)>,
    depth: usize,
}

impl Resolver<'_> {
    fn resolve(&mut self, expression: &IdedExpr) -> Result<Typed> {
        if self.depth == DEPTH_MAX {
            return Err(invalid("the condition is nested deeper than 64 levels"));
        }
        self.refuse_personal(expression)?;
        self.depth += 1;
        let resolved = match &expression.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(_) => Err(invalid("a list is written only after `in`")),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(invalid("maps and messages cannot be written"))
            }
        };
        self.depth -= 1;
        resolved
    }

    /// What sources hold encrypted tells a condition nothing.
    fn refuse_personal(&self, expression: &IdedExpr) -> Result<()> {
        let Some(personal) = self.names.entity.personal() else { return Ok(()) };
        let Some((field, steps)) = self.place(expression) else { return Ok(()) };
        if !personal.contains(field, &steps) {
            return Ok(());
        }
        let name = &self.names.entity.fields()[field].name;
        let path = std::iter::once(name.as_ref()).chain(steps).collect::<Vec<_>>().join(".");
        let message = format!("`{path}` is personal, and sources see it encrypted");
        Err(invalid(message).hint("use fields that are not personal"))
    }

    /// The field that an expression names, and the members below it.
    fn place<'e>(&self, expression: &'e IdedExpr) -> Option<(usize, Vec<&'e str>)> {
        let (below, name) = match &expression.expr {
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) if self.root(root).is_some() => {
                    return Some((self.names.entity.index_of(&select.field)?, Vec::new()));
                }
                _ => (select.operand.as_ref(), select.field.as_str()),
            },
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] => {
                    (of, name.inner())
                }
                _ => return None,
            },
            _ => return None,
        };
        let (field, mut steps) = self.place(below)?;
        steps.push(name);
        Some((field, steps))
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Typed> {
        let (value, ty) = match literal {
            LiteralValue::Boolean(b) => (Value::Boolean(*b.inner()), Type::Boolean),
            LiteralValue::Int(n) => (Value::Integer(*n.inner()), Type::Number),
            LiteralValue::UInt(n) => (Value::Decimal(Decimal::from(*n.inner())), Type::Number),
            LiteralValue::String(text) => (Value::String(text.inner().to_owned()), Type::Text),
            LiteralValue::Bytes(bytes) => (Value::Bytes(bytes.inner().to_vec()), Type::Bytes),
            LiteralValue::Null => (Value::Null, Type::Null),
            LiteralValue::Double(number) => {
                let double = *number.inner();
                // The shortest text of a double is what was written, up to 15 digits.
                let node = match Decimal::from_str_exact(&double.to_string()) {
                    Ok(exact) => Node::Number(exact, double),
                    Err(_) if double.is_finite() => Node::Constant(Value::Float(double)),
                    Err(_) => return Err(invalid("a number is too large")),
                };
                return Ok(Typed::new(node, Type::Number));
            }
        };
        Ok(Typed::new(Node::Constant(value), ty))
    }

    fn name(&self, name: &str) -> Result<Typed> {
        if let Some(n) = self.elements.iter().rposition(|(variable, _)| variable == name) {
            return Ok(Typed::new(Node::Element(n), self.elements[n].1.clone()));
        }
        let root = self.names.root;
        if let (true, root) = (self.root(name).is_some(), name) {
            return Err(invalid(format!("`{root}` is used as a value"))
                .hint(format!("name one of its fields: {root}.<field>")));
        }
        if name == NOW {
            return match self.names.clock {
                true => Ok(Typed::new(Node::Now, Type::Timestamp)),
                false => Err(clockless()),
            };
        }
        let error = invalid(format!("`{name}` is not known"));
        Err(match self.names.entity.field(name) {
            Some(_) => error.hint(format!("did you mean `{root}.{name}`?")),
            None => error
                .hint(format!("conditions use `{root}` and its fields: {}", self.field_names())),
        })
    }

    /// How many values come before those of the record that a name stands for.
    fn root(&self, name: &str) -> Option<usize> {
        if self.elements.iter().any(|(variable, _)| variable == name) {
            return None;
        }
        let second = (self.names.other == Some(name)).then(|| self.names.entity.fields().len());
        if name == self.names.root { Some(0) } else { second }
    }

    fn field_names(&self) -> String {
        let names = self.names.entity.fields().iter().map(|f| f.name.as_ref());
        names.take(12).collect::<Vec<_>>().join(", ")
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Typed> {
        let root = match &select.operand.expr {
            Expr::Ident(name) => self.root(name),
            _ => None,
        };
        let selected = if let Some(before) = root {
            let Some(n) = self.names.entity.index_of(&select.field) else {
                let names = self.names.entity.fields().iter().map(|f| f.name.as_ref());
                return Err(unknown_field(
                    &format!("{}.{}", self.names.root, select.field),
                    &select.field,
                    names,
                ));
            };
            Typed::new(Node::Field(before + n), Type::of_field(&self.names.entity.fields()[n].ty))
        } else {
            let operand = self.resolve(&select.operand)?;
            below(operand, &select.field)?
        };
        Ok(match select.test {
            true => Typed::new(Node::Has(Box::new(selected.node)), Type::Boolean),
            false => selected,
        })
    }

    fn call(&mut self, call: &CallExpr) -> Result<Typed> {
        let name = call.func_name.as_str();
        if let Some(operator) = comparison(name) {
            return self.compare(call, operator);
        }
        if let Some(operator) = arithmetic(name) {
            return self.calculate(call, operator);
        }
        match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR => {
                let mut parts = Vec::new();
                self.flatten(call, name, &mut parts)?;
                let node =
                    if name == operators::LOGICAL_AND { Node::And(parts) } else { Node::Or(parts) };
                Ok(Typed::new(node, Type::Boolean))
            }
            operators::LOGICAL_NOT => {
                let [a] = self.operands(call)?;
                a.ty.require(&Type::Boolean, "`!`")?;
                Ok(Typed::new(Node::Not(Box::new(a.node)), Type::Boolean))
            }
            operators::NEGATE => {
                let [a] = self.operands(call)?;
                a.ty.require(&Type::Number, "`-`")?;
                Ok(Typed::new(Node::Negate(Box::new(a.node)), Type::Number))
            }
            operators::CONDITIONAL => self.choose(call),
            operators::IN => self.membership(call),
            operators::INDEX => self.index(call),
            _ => self.function(call),
        }
    }

    /// The resolved operands, of which there must be `N`.
    fn operands<const N: usize>(&mut self, call: &CallExpr) -> Result<[Typed; N]> {
        let all = call.target.as_deref().into_iter().chain(&call.args);
        let resolved = all.map(|e| self.resolve(e)).collect::<Result<Vec<_>>>()?;
        let given = resolved.len();
        resolved
            .try_into()
            .map_err(|_| invalid(format!("`{}` takes {N} operands, not {given}", call.func_name)))
    }

    /// `a && b && c` as one list, however it was grouped, so that long chains are not deep.
    fn flatten(&mut self, call: &CallExpr, name: &str, parts: &mut Vec<Node>) -> Result<()> {
        for argument in &call.args {
            match &argument.expr {
                Expr::Call(inner) if inner.func_name == name => self.flatten(inner, name, parts)?,
                _ => {
                    let part = self.resolve(argument)?;
                    part.ty.require(
                        &Type::Boolean,
                        if name == operators::LOGICAL_AND { "`&&`" } else { "`||`" },
                    )?;
                    parts.push(part.node);
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, call: &CallExpr, operator: Comparison) -> Result<Typed> {
        let [mut a, mut b] = self.operands(call)?;
        let ordered = !matches!(operator, Comparison::Eq | Comparison::Ne);
        agree(&mut a, &mut b, ordered, call.func_name.trim_matches('_'))?;
        Ok(Typed::new(Node::Compare(operator, Box::new([a.node, b.node])), Type::Boolean))
    }

    fn calculate(&mut self, call: &CallExpr, operator: Arithmetic) -> Result<Typed> {
        let [a, b] = self.operands(call)?;
        let ty = match (operator, &a.ty, &b.ty) {
            (Arithmetic::Add | Arithmetic::Subtract, Type::Timestamp, Type::Duration)
            | (Arithmetic::Add, Type::Duration, Type::Timestamp) => Type::Timestamp,
            (Arithmetic::Subtract, Type::Timestamp, Type::Timestamp) => Type::Duration,
            _ => {
                for side in [&a, &b] {
                    side.ty.require(&Type::Number, "arithmetic")?;
                }
                Type::Number
            }
        };
        Ok(Typed::new(Node::Calculate(operator, Box::new([a.node, b.node])), ty))
    }

    fn choose(&mut self, call: &CallExpr) -> Result<Typed> {
        let [when, mut then, mut other] = self.operands(call)?;
        when.ty.require(&Type::Boolean, "`?:`")?;
        agree(&mut then, &mut other, false, "?:")?;
        let ty = if matches!(then.ty, Type::Any | Type::Null) { other.ty } else { then.ty };
        Ok(Typed::new(Node::Choose(Box::new([when.node, then.node, other.node])), ty))
    }

    fn membership(&mut self, call: &CallExpr) -> Result<Typed> {
        if let [value, IdedExpr { expr: Expr::List(list), .. }] = call.args.as_slice() {
            let mut value = self.resolve(value)?;
            let mut among = Vec::with_capacity(list.elements.len());
            for element in &list.elements {
                let mut element = self.resolve(element)?;
                agree(&mut value, &mut element, false, "in")?;
                among.push(element.node);
            }
            return Ok(Typed::new(Node::Among(Box::new(value.node), among), Type::Boolean));
        }
        let [mut value, list] = self.operands(call)?;
        match &list.ty {
            Type::Any => {}
            Type::List(of) => {
                let mut of = Typed::new(Node::Constant(Value::Null), (**of).clone());
                agree(&mut value, &mut of, false, "in")?;
            }
            other => return Err(invalid(format!("`in` looks into a list, not {other}"))),
        }
        Ok(Typed::new(Node::In(Box::new([value.node, list.node])), Type::Boolean))
    }

    fn index(&mut self, call: &CallExpr) -> Result<Typed> {
        let [list, place] = self.operands(call)?;
        match (place.node, list.ty.clone()) {
            (Node::Constant(Value::String(name)), _) => below(list, &name),
            (Node::Constant(Value::Integer(n)), ty @ (Type::List(_) | Type::Any)) => {
                let n = usize::try_from(n).map_err(|_| invalid("an index is below zero"))?;
                let of = if let Type::List(of) = ty { *of } else { Type::Any };
                Ok(Typed::new(Node::At(Box::new(list.node), n), of))
            }
            (Node::Constant(_), ty) => Err(invalid(format!("{ty} has no elements"))),
            _ => Err(invalid("an index is a literal number or name")),
        }
    }

    fn function(&mut self, call: &CallExpr) -> Result<Typed> {
        let test = match call.func_name.as_str() {
            "contains" => TextTest::Contains,
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            "size" => {
                let [a] = self.operands(call)?;
                return match a.ty {
                    Type::Text | Type::Bytes | Type::List(_) | Type::Any => {
                        Ok(Typed::new(Node::Size(Box::new(a.node)), Type::Number))
                    }
                    other => {
                        Err(invalid(format!("`size` takes text, bytes or a list, not {other}")))
                    }
                };
            }
            "timestamp" => return self.quoted(call, FieldType::Timestamp { precision: 6 }),
            "date" => return self.quoted(call, FieldType::Date),
            "decimal" => return self.quoted(call, FieldType::Decimal { precision: 28, scale: 0 }),
            "duration" => {
                let text = self.quote(call)?;
                let duration = duration(&text).ok_or_else(|| {
                    invalid(format!("\"{text}\" is not a duration"))
                        .hint("write it like \"500ms\", \"60s\", \"1h\" or \"7d\"")
                })?;
                return Ok(Typed::new(Node::Duration(duration), Type::Duration));
            }
            NOW if self.names.clock => {
                return Err(invalid("`now` is not a function").hint("write it without parentheses"));
            }
            NOW => return Err(clockless()),
            other => {
                let error = invalid(format!(
                    "the function `{}` is not available",
                    other.trim_matches(['_', '@'])
                ));
                return Err(match closest(other, FUNCTIONS) {
                    Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                    None => error.hint(format!("available are {}", FUNCTIONS.join(", "))),
                });
            }
        };
        let [a, b] = self.operands(call)?;
        for side in [&a, &b] {
            side.ty.require(&Type::Text, &format!("`{}`", call.func_name))?;
        }
        Ok(Typed::new(Node::Text(test, Box::new([a.node, b.node])), Type::Boolean))
    }

    /// `timestamp("…")` and its like.
    fn quoted(&mut self, call: &CallExpr, ty: FieldType) -> Result<Typed> {
        let text = &self.quote(call)?;
        let value = match ty {
            FieldType::Decimal { .. } => {
                Decimal::from_str_exact(text).map(Value::Decimal).map_err(|_| {
                    invalid(format!("\"{text}\" is not a decimal of at most 28 digits"))
                })?
            }
            ref ty => parse_literal(ty, text)?,
        };
        Ok(Typed::new(Node::Constant(value), Type::of_field(&ty)))
    }

    /// The quoted text that is a function's one operand.
    fn quote(&mut self, call: &CallExpr) -> Result<String> {
        let [a] = self.operands(call)?;
        match a.node {
            Node::Constant(Value::String(text)) => Ok(text),
            _ => Err(invalid(format!("`{}` takes quoted text", call.func_name))),
        }
    }

    /// `list.exists(x, test)` and `list.all(x, test)`, which the parser gives as folds.
    fn comprehension(&mut self, fold: &ComprehensionExpr) -> Result<Typed> {
        let test = match (&fold.accu_init.expr, &fold.loop_step.expr) {
            (Expr::Literal(LiteralValue::Boolean(_)), Expr::Call(step))
                if fold.iter_var2.is_none() =>
            {
                match (step.func_name.as_str(), step.args.as_slice()) {
                    (operators::LOGICAL_OR, [_, test]) => Some((false, test)),
                    (operators::LOGICAL_AND, [_, test]) => Some((true, test)),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some((all, test)) = test else {
            return Err(invalid(
                "of the functions over lists only `exists` and `all` are available",
            ));
        };
        let list = self.resolve(&fold.iter_range)?;
        let of = match list.ty {
            Type::List(of) => *of,
            Type::Any => Type::Any,
            other => {
                return Err(invalid(format!("`exists` and `all` look into a list, not {other}")));
            }
        };
        self.elements.push((fold.iter_var.clone(), of));
        let test = self.resolve(test);
        self.elements.pop();
        let test = test?;
        test.ty.require(&Type::Boolean, "the test of a list")?;
        let parts = Box::new([list.node, test.node]);
        Ok(Typed::new(if all { Node::All(parts) } else { Node::Exists(parts) }, Type::Boolean))
    }
}

/// The error when a rule looks at the clock that must give the same answer tomorrow.
fn clockless() -> unisono_core::Error {
    invalid("`now` is not available here: the same record must always give the same answer")
        .hint("only the `where` of a cache may look at the clock; compare with timestamp(\"…\")")
}

/// What is found under a name below a value.
fn below(operand: Typed, name: &str) -> Result<Typed> {
    match operand.ty {
        Type::Any => {
            Ok(Typed::new(Node::Member(Box::new(operand.node), name.to_owned()), Type::Any))
        }
        Type::Object(fields) => match fields.iter().position(|f| f.name.as_ref() == name) {
            Some(n) => {
                let ty = Type::of_field(&fields[n].ty);
                Ok(Typed::new(Node::SubField(Box::new(operand.node), n), ty))
            }
            None => Err(unknown_field(name, name, fields.iter().map(|f| f.name.as_ref()))),
        },
        Type::List(_) => Err(invalid(format!("`{name}` is looked for in a list"))
            .hint(format!("test its elements: list.exists(x, x.{name} == …)"))),
        other => Err(invalid(format!("`{name}` is looked for in {other}"))),
    }
}

fn unknown_field<'a>(
    shown: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> unisono_core::Error {
    let error = invalid(format!("`{shown}` is not declared"));
    match closest(name, known.clone()) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => {
            error.hint(format!("declared are {}", known.take(12).collect::<Vec<_>>().join(", ")))
        }
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Eq,
        operators::NOT_EQUALS => Comparison::Ne,
        operators::LESS => Comparison::Lt,
        operators::LESS_EQUALS => Comparison::Lte,
        operators::GREATER => Comparison::Gt,
        operators::GREATER_EQUALS => Comparison::Gte,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Modulo,
        _ => return None,
    })
}
