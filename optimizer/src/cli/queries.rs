//! Files of queries: JSON lines `{"id", "sql"}` or plain SQL, one query a line.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::error::{CliError, Result};

/// One line of a query file.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The `id` of the line, or its number in the file, from 1.
    pub id: Value,
    /// The SQL text, or why the line has none.
    pub sql: Result<String, String>,
}

impl Query {
    /// The id as it is shown to people: strings without quotes.
    pub fn name(&self) -> String {
        match &self.id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// Reads a file of queries; `-` is standard input. Blank lines and lines that are only a `--` comment hold no query;
/// every other line yields one, in the order of the file.
///
/// # Errors
/// The file cannot be read or holds no query.
pub fn read(path: &Path) -> Result<Vec<Query>> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    }
    .map_err(|error| CliError::io(path, error))?;
    let queries = parse(&bytes);
    if queries.is_empty() { Err(CliError::file(path, &"holds no queries")) } else { Ok(queries) }
}

/// Parses the content of a file of queries.
pub fn parse(bytes: &[u8]) -> Vec<Query> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"--"))
        .map(|(index, line)| parse_line(index + 1, line))
        .collect()
}

fn parse_line(number: usize, line: &[u8]) -> Query {
    let failed = |id: Value, reason: String| Query { id, sql: Err(format!("line {number}: {reason}")) };
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => return failed(number.into(), error.to_string()),
    };
    if !text.starts_with('{') {
        return Query { id: number.into(), sql: Ok(text.to_owned()) };
    }
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return failed(number.into(), error.to_string()),
    };
    let id = match value.get_mut("id").map(Value::take) {
        None | Some(Value::Null) => number.into(),
        Some(id) => id,
    };
    match value.get_mut("sql").map(Value::take) {
        Some(Value::String(sql)) => Query { id, sql: Ok(sql) },
        Some(_) => failed(id, "\"sql\" is not a string".to_owned()),
        None => failed(id, "no \"sql\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_with_content_yields_one_query() {
        let file =
            b"{\"id\":\"a\",\"sql\":\"SELECT 1\",\"kind\":\"x\"}\n\nSELECT 2;\r\n-- note\n{\"id\":7}\n{broken\n\xff";
        let queries = parse(file);
        let names: Vec<_> = queries.iter().map(Query::name).collect();
        assert_eq!(names, ["a", "3", "7", "6", "7"]);
        assert_eq!(queries[0].sql.as_deref(), Ok("SELECT 1"));
        assert_eq!(queries[1].sql.as_deref(), Ok("SELECT 2;"));
        assert!(queries[2..].iter().all(|query| query.sql.is_err()));
    }
}
