//! The interactive shell of `relata sql`: multi-line statements, history, `\d` and `\q`.

use std::io::{BufRead, BufReader, IsTerminal, Stdin};
use std::path::PathBuf;

use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::database::Database;
use super::error::{CliError, Outcome, Result};
use super::open::{Profiled, cache_directory};
use super::sql::Printer;
use super::terminal::Terminal;

const HELP: &str = "\\d         list the tables\n\\d NAME    list the columns of a table\n\\q         quit\n\
                    \\?         this help\nanything else is SQL and ends with ';'";

/// One session at the prompt.
pub(super) struct Shell<'a> {
    ctx: &'a SessionContext,
    database: &'a Database,
    printer: Printer,
    /// Statements and commands that failed.
    failures: usize,
}

impl<'a> Shell<'a> {
    pub(super) fn new(profiled: &'a Profiled, printer: Printer) -> Self {
        Shell { ctx: &profiled.ctx, database: &profiled.database, printer, failures: 0 }
    }

    /// Reads and runs statements until `\q` or the end of the input. Errors are reported and do not end the shell; where
    /// the input is no terminal, they make the outcome a failure.
    pub(super) async fn run(mut self, terminal: &mut Terminal) -> Result<Outcome> {
        let mut input = Input::open(terminal)?;
        let mut pending = String::new();
        loop {
            let prompt = if pending.is_empty() { "relata> " } else { "     -> " };
            match input.line(prompt)? {
                Line::Text(line) if line.trim() == "\\q" => break,
                Line::Text(line) if pending.is_empty() && line.trim_start().starts_with('\\') => {
                    input.remember(line.trim());
                    self.command(line.trim(), terminal)?;
                }
                Line::Text(line) => {
                    pending.push_str(&line);
                    pending.push('\n');
                    let (statements, rest) = split(&pending);
                    for statement in statements {
                        input.remember(&statement);
                        self.statement(&statement, terminal).await?;
                    }
                    pending = rest.unwrap_or_default();
                }
                Line::Interrupted => pending.clear(),
                Line::End => {
                    if !pending.is_empty() {
                        self.statement(&pending, terminal).await?;
                    }
                    break;
                }
            }
        }
        input.close();
        let failures = if input.is_interactive() { 0 } else { self.failures };
        Ok(Outcome::from_failures(failures))
    }

    async fn statement(&mut self, sql: &str, terminal: &mut Terminal) -> Result<()> {
        match self.printer.run(self.ctx, sql, terminal).await {
            Err(error) if !error.is_broken_pipe() => {
                self.failures += 1;
                terminal.error(error);
                Ok(())
            }
            other => other,
        }
    }

    fn command(&mut self, command: &str, terminal: &mut Terminal) -> Result<()> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, argument.trim()) {
            ("\\?" | "\\h", _) => terminal.line(HELP)?,
            ("\\d", "") => {
                for table in &self.database.tables {
                    terminal.line(format_args!("{} ({} columns)", table.name, table.schema().fields().len()))?;
                }
            }
            ("\\d", table) => self.describe(table.trim_end_matches(';').trim_matches('"'), terminal)?,
            _ => {
                self.failures += 1;
                terminal.error(format_args!("unknown command {name}; \\? lists the commands"));
            }
        }
        terminal.flush()
    }

    fn describe(&mut self, name: &str, terminal: &mut Terminal) -> Result<()> {
        let Some(table) = self.database.table(name) else {
            self.failures += 1;
            terminal.error(format_args!("no table {name}; \\d lists the tables"));
            return Ok(());
        };
        let schema = table.schema();
        let width = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
        for field in schema.fields() {
            let null = if field.is_nullable() { "" } else { " NOT NULL" };
            terminal.line(format_args!("{:width$}  {}{null}", field.name(), field.data_type()))?;
        }
        if let Some(keys) = &self.database.keys {
            if let Some(key) = keys.primary_of(name) {
                terminal.line(format_args!("primary key {key}"))?;
            }
            for key in keys.foreign.iter().filter(|key| key.table == name || key.references == name) {
                terminal.line(format_args!("foreign key {key}"))?;
            }
        }
        Ok(())
    }
}

/// One line of input.
enum Line {
    Text(String),
    /// Control-C: the statement begun is dropped.
    Interrupted,
    End,
}

/// Where lines come from: a person at a terminal, or a file or pipe.
enum Input {
    Editor { editor: Box<DefaultEditor>, history: PathBuf },
    Pipe(std::io::Lines<BufReader<Stdin>>),
}

impl Input {
    fn open(terminal: &Terminal) -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Input::Pipe(BufReader::new(std::io::stdin()).lines()));
        }
        let mut editor = DefaultEditor::new().map_err(readline_error)?;
        let directory = dirs::state_dir().map_or_else(cache_directory, |directory| directory.join("relata"));
        let history = directory.join("history");
        // A first start has no history, and a folder that cannot be written only costs the history.
        let _ = std::fs::create_dir_all(&directory);
        let _ = editor.load_history(&history);
        terminal.note("relata shell; \\? for help, \\q to quit");
        Ok(Input::Editor { editor: Box::new(editor), history })
    }

    fn is_interactive(&self) -> bool {
        matches!(self, Input::Editor { .. })
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Input::Pipe(lines) => match lines.next() {
                None => Ok(Line::End),
                Some(line) => line.map(Line::Text).map_err(|error| CliError::io("standard input", error)),
            },
            Input::Editor { editor, .. } => match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(readline_error(error)),
            },
        }
    }

    fn remember(&mut self, entry: &str) {
        if let Input::Editor { editor, .. } = self {
            let _ = editor.add_history_entry(entry);
        }
    }

    fn close(&mut self) {
        if let Input::Editor { editor, history } = self {
            let _ = editor.append_history(history);
        }
    }
}

fn readline_error(error: ReadlineError) -> CliError {
    let source = match error {
        ReadlineError::Io(source) => source,
        other => std::io::Error::other(other),
    };
    CliError::io("terminal", source)
}

/// Splits text at the semicolons that end statements, those outside of quotes and comments, and returns the statements
/// without them, and the text after the last one if it holds more than comments.
pub(super) fn split(text: &str) -> (Vec<String>, Option<String>) {
    let tokens = match Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            // An open quote or comment goes on in the next line. Anything else is for the parser to complain about, once
            // the statement looks complete.
            let open = error.message.contains("ntermin") || error.message.contains("EOF");
            let statement = text.trim().to_owned();
            let complete = !open && statement.ends_with(';');
            return if complete { (vec![statement], None) } else { (vec![], Some(text.to_owned())) };
        }
    };
    let mut statements = Vec::new();
    let (mut start, mut has_content) = (0, false);
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let end = offset(text, token.span.start);
                if has_content {
                    statements.push(text[start..end].trim().to_owned());
                }
                (start, has_content) = (end + 1, false);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => has_content = true,
        }
    }
    (statements, has_content.then(|| text[start..].trim_start().to_owned()))
}

/// The byte offset of a token; lines and columns count from 1, columns in characters.
fn offset(text: &str, location: Location) -> usize {
    let line_start = match location.line {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line as usize - 2).map_or(text.len(), |(index, _)| index + 1),
    };
    let characters = location.column.saturating_sub(1) as usize;
    text[line_start..].char_indices().nth(characters).map_or(text.len(), |(index, _)| line_start + index)
}

#[cfg(test)]
mod tests {
    use super::split;

    fn parts(text: &str) -> (Vec<String>, Option<String>) {
        split(text)
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        let (statements, rest) = parts("SELECT 'a;b', \"c;d\" -- e;f\n/* g;h */;\n SELECT 'äö'; select 3\n");
        assert_eq!(statements, ["SELECT 'a;b', \"c;d\" -- e;f\n/* g;h */", "SELECT 'äö'"]);
        assert_eq!(rest.as_deref(), Some("select 3\n"));
    }

    #[test]
    fn open_quotes_wait_and_comments_are_nothing() {
        assert_eq!(parts("SELECT 'a;\n"), (vec![], Some("SELECT 'a;\n".to_owned())));
        assert_eq!(parts("SELECT 1 /* ;\n").0.len(), 0);
        assert_eq!(parts(";; -- nothing\n"), (vec![], None));
    }
}
