//! Wraps the lists and maps that a template makes: literals, results of filters, sums, and values that become part of a
//! namespace pass through the filters `counted` and `counted_sum`.
//!
//! Beside these, `%` becomes the filter `modulo`, since it formats texts in Python, and the operands of `~` pass through
//! `printable`. What Python would do otherwise, and cannot be helped here, is refused by its name.
//!
//! Jinja cannot be configured to do so, so the text is changed before it is compiled, keeping its lines. Methods and
//! functions need no mark: those of the environment return counted lists and maps.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// Filters whose arguments minijinja takes by name only, with the names in Jinja's order.
const NAMED_ARGUMENTS: [(&str, &[&str]); 5] = [
    ("dictsort", &["case_sensitive=", "by=", "reverse="]),
    ("unique", &["case_sensitive=", "attribute="]),
    ("min", &["case_sensitive=", "attribute="]),
    ("max", &["case_sensitive=", "attribute="]),
    ("sort", &["reverse=", "case_sensitive=", "attribute="]),
];

/// The template with the marks.
///
/// # Errors
/// If it is not a valid template, or includes another.
pub(super) fn mark(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let mut marks = Marks { source, puts: Vec::new(), macros: 0, unsupported: None };
    marks.statement(&parse(source, "chat", syntax)?)?;
    if let Some(what) = marks.unsupported {
        return Err(Error::new(ErrorKind::SyntaxError, format!("{what} is not supported")));
    }
    // Of those at one place, the first found is the outermost that opens there, or the innermost that closes.
    marks.puts.sort_by_key(|put| put.place);
    let mut marked = String::with_capacity(source.len() + 12 * marks.puts.len());
    let mut done = 0;
    for put in marks.puts {
        marked.push_str(&source[done..put.place]);
        marked.push_str(put.text);
        done = put.place + put.replaced;
    }
    marked.push_str(&source[done..]);
    Ok(marked)
}

struct Marks<'a> {
    source: &'a str,
    puts: Vec<Put>,
    /// The number of macros around.
    macros: usize,
    /// What the template uses and this environment cannot do as Python does.
    unsupported: Option<String>,
}

/// A text that is put into the source, in place of so many bytes.
struct Put {
    place: usize,
    text: &'static str,
    replaced: usize,
}

impl Marks<'_> {
    fn put(&mut self, place: u32, text: &'static str) {
        self.puts.push(Put { place: place as usize, text, replaced: 0 });
    }

    fn refuse(&mut self, what: String) {
        self.unsupported.get_or_insert(what);
    }

    fn source_of(&self, expression: &Expr<'_>) -> &str {
        let span = expression.span();
        &self.source[span.start_offset as usize..span.end_offset as usize]
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) -> Result<(), Error> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), Error> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
            Stmt::EmitExpr(emit) => {
                self.value(&emit.expr);
                Ok(())
            }
            Stmt::ForLoop(repeat) => {
                self.value(&repeat.iter);
                self.values(&repeat.filter_expr);
                self.statements(&repeat.body)?;
                self.statements(&repeat.else_body)
            }
            Stmt::IfCond(choice) => {
                self.value(&choice.expr);
                self.statements(&choice.true_body)?;
                self.statements(&choice.false_body)
            }
            Stmt::WithBlock(with) => {
                self.with_names(&with.assignments);
                self.values(with.assignments.iter().map(|(_, value)| value));
                self.statements(&with.body)
            }
            Stmt::Set(set) => {
                self.assignment(&set.target, &set.expr, set.span());
                Ok(())
            }
            Stmt::SetBlock(set) => {
                self.values(&set.filter);
                self.statements(&set.body)
            }
            Stmt::AutoEscape(escape) => {
                self.value(&escape.enabled);
                self.statements(&escape.body)
            }
            Stmt::FilterBlock(filtered) => {
                self.value(&filtered.filter);
                self.statements(&filtered.body)
            }
            Stmt::Block(block) => self.statements(&block.body),
            Stmt::Macro(definition) => {
                self.values(&definition.defaults);
                self.macros += 1;
                let done = self.statements(&definition.body);
                self.macros -= 1;
                done
            }
            Stmt::CallBlock(block) => {
                self.value(&block.call.expr);
                self.arguments(&block.call.args);
                self.values(&block.macro_decl.defaults);
                self.statements(&block.macro_decl.body)
            }
            Stmt::Do(run) => {
                self.value(&run.call.expr);
                self.arguments(&run.call.args);
                Ok(())
            }
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                Err(Error::new(ErrorKind::TemplateNotFound, "it refers to another template, which is not supported"))
            }
        }
    }

    /// `{% set target = value %}`: what becomes part of a namespace is marked as a whole, since it may be a namespace,
    /// and so is a tuple, which may have no brackets.
    fn assignment(&mut self, target: &Expr<'_>, value: &Expr<'_>, span: Span) {
        let is_sum = matches!(value, Expr::BinOp(operation) if is_sum(operation.op));
        let text = &self.source[span.start_offset as usize..span.end_offset as usize];
        let is_whole = matches!(value, Expr::Tuple(_)) || matches!(target, Expr::GetAttr(_)) && !is_sum;
        let Some(sign) = text.find('=').filter(|_| is_whole) else { return self.value(value) };
        self.whole(span.start_offset + sign as u32 + 1, span.end_offset, |marks| match value {
            Expr::Tuple(tuple) => marks.values(&tuple.items),
            other => marks.value(other),
        });
    }

    /// Refuses a block in which a value refers to a name that the block sets: Python's Jinja takes the outer one.
    fn with_names(&mut self, assignments: &[(Expr<'_>, Expr<'_>)]) {
        let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
        for (index, (_, value)) in assignments.iter().enumerate() {
            let words: Vec<&str> = self.source_of(value).split(|letter| !is_letter(letter)).collect();
            let earlier = assignments[..index].iter().map(|(target, _)| self.source_of(target));
            if let Some(name) = earlier.filter(|name| words.contains(name)).map(str::to_owned).next() {
                self.refuse(format!("`with` in which a value refers to its own name `{name}`"));
            }
        }
    }

    fn whole(&mut self, start: u32, end: u32, within: impl FnOnce(&mut Self)) {
        self.put(start, "((");
        within(self);
        self.put(end, ")|counted)");
    }

    fn values<'e, 's: 'e>(&mut self, values: impl IntoIterator<Item = &'e Expr<'s>>) {
        for value in values {
            self.value(value);
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) {
        for argument in arguments {
            let (CallArg::Pos(value)
            | CallArg::Kwarg(_, value)
            | CallArg::PosSplat(value)
            | CallArg::KwargSplat(value)) = argument;
            self.value(value);
        }
    }

    fn value(&mut self, value: &Expr<'_>) {
        match value {
            Expr::Const(_) => {}
            Expr::Var(name) => match name.id {
                "varargs" | "kwargs" if self.macros > 0 => self.refuse(format!("`{}` of macros", name.id)),
                "self" => self.refuse("`self`".to_owned()),
                _ => {}
            },
            Expr::List(list) => self.whole(list.span().start_offset, list.span().end_offset, |marks| {
                marks.values(&list.items);
            }),
            Expr::Tuple(tuple) => self.whole(tuple.span().start_offset, tuple.span().end_offset, |marks| {
                marks.values(&tuple.items);
            }),
            Expr::Map(map) => self.whole(map.span().start_offset, map.span().end_offset, |marks| {
                for (key, value) in map.keys.iter().zip(&map.values) {
                    marks.values([key, value]);
                }
            }),
            Expr::BinOp(operation) if is_sum(operation.op) => {
                self.put(operation.span().start_offset, "((");
                self.term(&operation.left);
                self.term(&operation.right);
                self.put(operation.span().end_offset, ")|counted_sum)");
            }
            Expr::BinOp(operation) if matches!(operation.op, BinOpKind::Rem) => {
                self.put(operation.span().start_offset, "((");
                self.value(&operation.left);
                let after = operation.left.span().end_offset as usize;
                if let Some(sign) = self.source[after..].find('%') {
                    self.puts.push(Put { place: after + sign, text: ")|modulo(", replaced: 1 });
                }
                self.value(&operation.right);
                self.put(operation.span().end_offset, "))");
            }
            Expr::BinOp(operation) if matches!(operation.op, BinOpKind::Concat) => {
                self.joined(&operation.left);
                self.joined(&operation.right);
            }
            Expr::BinOp(operation) => self.values([&operation.left, &operation.right]),
            Expr::UnaryOp(operation) => self.value(&operation.expr),
            Expr::Compare(comparison) => {
                self.value(&comparison.expr);
                self.values(comparison.ops.iter().map(|operation| &operation.expr));
            }
            Expr::IfExpr(choice) => {
                self.values([&choice.true_expr, &choice.test_expr]);
                self.values(&choice.false_expr);
            }
            Expr::Filter(filter) => {
                self.values(&filter.expr);
                let names =
                    NAMED_ARGUMENTS.iter().find(|(name, _)| *name == filter.name).map_or(&[][..], |(_, names)| names);
                for (argument, name) in filter.args.iter().zip(names) {
                    if let CallArg::Pos(value) = argument {
                        self.put(first_byte(value), name);
                    }
                }
                self.arguments(&filter.args);
                self.put(filter.span().end_offset, "|counted");
            }
            Expr::Test(test) => {
                self.value(&test.expr);
                self.arguments(&test.args);
            }
            Expr::Call(call) => {
                self.value(&call.expr);
                self.arguments(&call.args);
            }
            Expr::GetAttr(access) => self.value(&access.expr),
            Expr::GetItem(access) => self.values([&access.expr, &access.subscript_expr]),
            Expr::Slice(slice) => {
                self.value(&slice.expr);
                self.values([&slice.start, &slice.stop, &slice.step].into_iter().flatten());
            }
        }
    }

    /// An operand of `~`, which becomes text.
    fn joined(&mut self, value: &Expr<'_>) {
        let is_text = match value {
            Expr::Const(constant) => constant.value.as_str().is_some(),
            Expr::BinOp(operation) => matches!(operation.op, BinOpKind::Concat),
            _ => false,
        };
        if is_text {
            return self.value(value);
        }
        self.put(first_byte(value), "((");
        self.value(value);
        self.put(value.span().end_offset, ")|printable)");
    }

    /// A term of a sum, which is marked itself.
    fn term(&mut self, value: &Expr<'_>) {
        match value {
            Expr::BinOp(operation) if is_sum(operation.op) => {
                self.term(&operation.left);
                self.term(&operation.right);
            }
            other => self.value(other),
        }
    }
}

/// The first byte of an expression: filters and tests have the span of their own name, attributes, items and calls that of
/// the one before them.
fn first_byte(value: &Expr<'_>) -> u32 {
    match value {
        Expr::GetAttr(access) => first_byte(&access.expr),
        Expr::GetItem(access) => first_byte(&access.expr),
        Expr::Slice(slice) => first_byte(&slice.expr),
        Expr::Call(call) => first_byte(&call.expr),
        Expr::Filter(filter) => filter.expr.as_ref().map_or(filter.span().start_offset, first_byte),
        Expr::Test(test) => first_byte(&test.expr),
        other => other.span().start_offset,
    }
}

/// True if an operation may make a list.
fn is_sum(operation: BinOpKind) -> bool {
    matches!(operation, BinOpKind::Add | BinOpKind::Mul)
}
