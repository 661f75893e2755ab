//! Wraps the lists and maps that a template makes: literals, results of filters, sums, and values that become part of a
//! namespace pass through the filters `counted` and `counted_sum`.
//!
//! Jinja cannot be configured to do so, so the text is changed before it is compiled, keeping its lines. Methods and
//! functions need no mark: those of the environment return counted lists and maps.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// The template with the marks.
///
/// # Errors
/// If it is not a valid template, or includes another.
pub(super) fn mark(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let mut marks = Marks { source, puts: Vec::new() };
    marks.statement(&parse(source, "chat", syntax)?)?;
    // Of those at one place, the first found is the outermost that opens there, or the innermost that closes.
    marks.puts.sort_by_key(|(place, _)| *place);
    let mut marked = String::with_capacity(source.len() + 12 * marks.puts.len());
    let mut done = 0;
    for (place, put) in marks.puts {
        marked.push_str(&source[done..place]);
        marked.push_str(put);
        done = place;
    }
    marked.push_str(&source[done..]);
    Ok(marked)
}

struct Marks<'a> {
    source: &'a str,
    puts: Vec<(usize, &'static str)>,
}

impl Marks<'_> {
    fn put(&mut self, place: u32, text: &'static str) {
        self.puts.push((place as usize, text));
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
                self.statements(&definition.body)
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
            Expr::Var(_) | Expr::Const(_) => {}
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

/// True if an operation may make a list.
fn is_sum(operation: BinOpKind) -> bool {
    matches!(operation, BinOpKind::Add | BinOpKind::Mul)
}
