//! The command `relata` from the outside: good and bad folders, files of queries, exit codes.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use relata::ExpertStack;
use relata_experts::tuned::TunedManifest;
use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in; profiles go there as well, not to the user's cache.
struct Folder(TempDir);

impl Folder {
    fn empty() -> Self {
        Folder(TempDir::new().unwrap())
    }

    /// 20 customers in 4 towns, and 200 orders, half of them by the first customer.
    fn shop() -> Self {
        let folder = Folder::empty();
        fs::create_dir(folder.database()).unwrap();
        let towns = ["Aachen", "Bonn", "Celle", "Dessau"];
        folder.parquet("town", vec![("town_id", numbers(0..4)), ("name", text(towns.map(str::to_owned)))]);
        let names = (0..20).map(|i| format!("customer {i}"));
        folder.parquet(
            "customer",
            vec![
                ("customer_id", numbers(100..120)),
                ("town_id", numbers((0..20).map(|i| i % 4))),
                ("name", text(names)),
            ],
        );
        let customers = (0..200).map(|i| if i % 2 == 0 { 100 } else { 100 + i % 20 });
        let amounts = Float64Array::from_iter_values((0..200).map(|i| f64::from(i) * 0.25 + 0.1));
        folder.parquet(
            "orders",
            vec![("order_id", numbers(0..200)), ("customer_id", numbers(customers)), ("amount", Arc::new(amounts))],
        );
        folder
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("database")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn parquet(&self, table: &str, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = File::create(self.database().join(format!("{table}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// Runs the command on the folder's database.
    fn relata(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        Ran::from(command.stdin(Stdio::null()).output().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relata"));
        command.args(arguments).args(["--threads", "2", "--database"]).arg(self.database());
        command.arg("--profiles").arg(self.0.path().join("profiles"));
        command
    }
}

fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn text(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_missing_or_empty_folder_is_a_clear_error() {
    let folder = Folder::empty();
    let ran = folder.relata(&["sql", "SELECT 1"]).expect(1);
    assert!(ran.err.contains("database: does not exist"), "{ran:?}");
    fs::create_dir(folder.database()).unwrap();
    let ran = folder.relata(&["sql", "SELECT 1"]).expect(1);
    assert!(ran.err.contains("holds no Parquet or CSV file"), "{ran:?}");
    assert_eq!(ran.out, "");
}

#[test]
fn damaged_files_are_reported_and_the_others_work() {
    let folder = Folder::shop();
    let whole = fs::read(folder.database().join("orders.parquet")).unwrap();
    folder.write("database/truncated.parquet", &whole[..whole.len() / 2]);
    folder.write("database/text.parquet", "a,b\n1,2\n");
    folder.write("database/nothing.parquet", "");
    folder.write("database/nothing.csv", "");
    folder.write("database/binary.csv", &whole);
    folder.write("database/town.csv", "a\n1\n");
    folder.write("database/extra.CSV", "id,note\n1,\"two\nlines\"\n2,x\n");
    folder.write("database/notes.txt", "no table");
    let query = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM extra) AS n";
    let ran = folder.relata(&["sql", "--format", "csv", query]).expect(0);
    assert_eq!(ran.out, "n\n202\n");
    for skipped in ["truncated.parquet", "text.parquet", "nothing.parquet", "nothing.csv", "binary.csv", "town.csv"] {
        let line = ran.err.lines().find(|line| line.starts_with("warning: skipped") && line.contains(skipped));
        assert!(line.is_some(), "{skipped}: {ran:?}");
    }
    let ran = folder.relata(&["sql", "SELECT * FROM truncated"]).expect(1);
    assert!(ran.err.contains("truncated"), "{ran:?}");
}

#[test]
fn patterns_in_paths_are_just_names() {
    let folder = Folder::shop();
    let odd = folder.0.path().join("a [b] *c?%20 ä#");
    fs::rename(folder.database(), &odd).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relata"));
    command.args(["sql", "--format", "json", "SELECT count(*) AS n FROM orders", "--database"]).arg(&odd);
    let ran = Ran::from(command.arg("--profiles").arg(folder.0.path()).output().unwrap()).expect(0);
    assert_eq!(ran.out, "{\"n\":200}\n");
}

#[test]
fn a_broken_schema_is_a_clear_error() {
    let folder = Folder::shop();
    for (schema, reason) in [
        ("{\"tables\": [", "EOF"),
        ("{\"tables\": [{\"name\": 7}]}", "string"),
        (
            "{\"tables\": [{\"name\": \"town\", \"primary_key\": [\"missing\"]}]}",
            "table town has no column \"missing\"",
        ),
        (
            "{\"foreign_keys\": [{\"table\": \"orders\", \"columns\": [\"customer_id\"], \"references\": \"customer\", \
             \"ref_columns\": []}]}",
            "does not pair up",
        ),
    ] {
        folder.write("database/schema.json", schema);
        let ran = folder.relata(&["profile"]).expect(1);
        assert!(ran.err.contains("schema.json") && ran.err.contains(reason), "{schema}: {ran:?}");
    }
}

#[test]
fn profile_lists_declared_keys_and_infers_missing_ones() {
    let folder = Folder::shop();
    let ran = folder.relata(&["profile"]).expect(0);
    for line in [
        "primary keys, inferred from the data: 3",
        "  customer(customer_id)",
        "  orders(order_id)",
        "  town(town_id)",
        "foreign keys, inferred from the data: 2",
        "  customer(town_id) -> town(town_id)",
        "  orders(customer_id) -> customer(customer_id)",
    ] {
        assert!(ran.out.lines().any(|found| found == line), "{line}: {}", ran.out);
    }
    folder.write(
        "database/schema.json",
        "{\"tables\": [{\"name\": \"town\", \"primary_key\": [\"name\"]}, {\"name\": \"gone\", \"primary_key\": [\"x\"]}]}",
    );
    let ran = folder.relata(&["profile"]).expect(0);
    assert!(ran.out.contains("primary keys, declared: 1\n  town(name)\nforeign keys, declared: 0\n"), "{}", ran.out);
    assert!(ran.err.contains("1 keys are about tables that are not open"), "{ran:?}");
}

#[test]
fn estimate_answers_every_line_and_fails_if_one_did() {
    let folder = Folder::shop();
    let queries = folder.write(
        "queries.jsonl",
        "{\"id\": \"all\", \"sql\": \"SELECT count(*) FROM orders\", \"kind\": \"seed\"}\n\
         {\"id\": \"parse\", \"sql\": \"SELEC count(*) FROM orders\"}\n\
         {\"id\": \"plan\", \"sql\": \"SELECT count(*) FROM nowhere\"}\n\
         {\"id\": \"change\", \"sql\": \"DROP TABLE orders\"}\n\
         {\"id\": 5}\n\
         SELECT * FROM orders o JOIN customer c ON o.customer_id = c.customer_id WHERE c.name = 'customer 3'\n",
    );
    let queries = queries.to_str().unwrap();
    let ran = folder.relata(&["estimate", "--queries", queries]).expect(1);
    let lines = ran.json_lines();
    let ids: Vec<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids, ["\"all\"", "\"parse\"", "\"plan\"", "\"change\"", "5", "6"]);
    for (index, line) in lines.iter().enumerate() {
        if index == 0 || index == 5 {
            let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key}: {line}"));
            assert!(number("lower") <= number("estimate") && number("estimate") <= number("upper"), "{line}");
            assert!(line["planning_us"].is_u64() && line.get("default").is_some(), "{line}");
        } else {
            assert!(line["error"].is_string() && line.as_object().unwrap().len() == 2, "{line}");
        }
    }
    assert!((lines[0]["estimate"].as_f64().unwrap() - 200.0).abs() < 1.0, "{}", lines[0]);

    let good = folder.write("good.sql", "SELECT count(*) FROM orders;\n\n-- a remark\nSELECT 1\n");
    let ran = folder.relata(&["estimate", "--runtimes", "--queries", good.to_str().unwrap()]).expect(0);
    for line in ran.json_lines() {
        for figure in ["elapsed_us", "peak_bytes"] {
            let quantiles: Vec<u64> = line[figure].as_array().unwrap().iter().filter_map(|one| one.as_u64()).collect();
            assert!(quantiles.len() == 3 && quantiles.is_sorted() && quantiles[2] > 0, "{line}");
        }
    }
    let ran = folder.relata(&["advise", "SELECT count(*) FROM orders"]).expect(0);
    assert!(ran.out.contains("target_partitions") && ran.out.contains("current"), "{}", ran.out);
    // The tables are of one page each.
    let ran = folder.relata(&["advise", "--queries", good.to_str().unwrap()]).expect(0);
    assert_eq!(ran.out, "no table is predicted to be faster sorted\n");
    let answers = folder.0.path().join("answers.jsonl");
    let arguments = ["estimate", "--queries", good.to_str().unwrap(), "--output", answers.to_str().unwrap()];
    let ran = folder.relata(&arguments).expect(0);
    assert_eq!(ran.out, "");
    assert_eq!(fs::read_to_string(answers).unwrap().lines().count(), 2);
}

#[test]
fn a_missing_or_empty_file_of_queries_is_a_clear_error() {
    let folder = Folder::shop();
    let ran = folder.relata(&["estimate", "--queries", "nowhere.jsonl"]).expect(1);
    assert!(ran.err.contains("nowhere.jsonl"), "{ran:?}");
    let empty = folder.write("empty.sql", "\n-- nothing\n");
    let ran = folder.relata(&["run", "--queries", empty.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("holds no queries"), "{ran:?}");
}

const JOINS: &str = "SELECT t.name, count(*) AS n, sum(o.amount) AS amount FROM orders o \
    JOIN customer c ON o.customer_id = c.customer_id JOIN town t ON t.town_id = c.town_id GROUP BY t.name\n\
    SELECT count(*) FROM orders a JOIN orders b ON a.customer_id = b.customer_id \
    JOIN customer c ON c.customer_id = b.customer_id JOIN town t ON t.town_id = c.town_id WHERE t.name = 'Bonn'\n\
    SELECT o.order_id, c.name FROM orders o JOIN customer c ON o.customer_id = c.customer_id ORDER BY o.order_id LIMIT 5\n";

#[test]
fn run_gives_the_same_digests_under_both_optimizers() {
    let folder = Folder::shop();
    let queries = folder.write("queries.sql", JOINS);
    let run = |optimizer: &str| {
        let queries = queries.to_str().unwrap();
        let ran = folder.relata(&["run", "--queries", queries, "--optimizer", optimizer, "--repeat", "2"]).expect(0);
        ran.json_lines()
    };
    let (default, relata) = (run("default"), run("relata"));
    let rows: Vec<_> = default.iter().map(|line| line["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [3, 1, 5]);
    for (one, other) in default.iter().zip(&relata) {
        assert_eq!(one["digest"], other["digest"]);
        assert_eq!(one["planning_us"].as_array().unwrap().len(), 2);
        assert_eq!(one["execution_us"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn compare_prints_ratios_and_fails_with_a_query() {
    let folder = Folder::shop();
    let queries = folder.write("queries.sql", JOINS);
    let lines = folder.0.path().join("lines.jsonl");
    let arguments = [
        "run",
        "--compare",
        "--repeat",
        "1",
        "--queries",
        queries.to_str().unwrap(),
        "--output",
        lines.to_str().unwrap(),
    ];
    let ran = folder.relata(&arguments).expect(0);
    for label in ["queries          3, 0 failed, 0 with different results", "geometric mean", "slower > 2.0x", "worst"]
    {
        assert!(ran.out.contains(label), "{label}: {}", ran.out);
    }
    let lines = fs::read_to_string(lines).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["speedup"].is_f64() && first["same"] == true && first["relata"]["rows"] == 3, "{first}");

    let queries = folder.write("queries.sql", format!("{JOINS}SELECT nothing FROM orders\n"));
    let ran = folder.relata(&["run", "--compare", "--repeat", "1", "--queries", queries.to_str().unwrap()]).expect(1);
    assert!(ran.out.contains("1 failed") && ran.err.contains("error: query 4: "), "{ran:?}");
}

#[test]
fn run_changes_nothing() {
    let folder = Folder::shop();
    let copy = folder.0.path().join("copy.parquet");
    let queries = folder.write("queries.sql", format!("COPY orders TO '{}'\n", copy.display()));
    let ran = folder.relata(&["run", "--queries", queries.to_str().unwrap(), "--repeat", "1"]).expect(1);
    let lines = ran.json_lines();
    assert!(lines[0]["error"].as_str().unwrap().contains("not supported"), "{ran:?}");
    assert!(!copy.exists());
}

#[test]
fn a_query_past_its_time_is_given_up_and_the_next_ones_run() {
    let folder = Folder::shop();
    // No task of this join yields before it is through.
    let endless = "SELECT count(*) FROM orders a, orders b, orders c, orders d, orders e \
        WHERE a.amount + b.amount + c.amount + d.amount + e.amount < 0";
    let queries = format!("{endless}\n{endless}\nSELECT count(*) FROM town\nSELECT 1\n");
    let queries = folder.write("queries.sql", queries);
    let arguments = ["run", "--queries", queries.to_str().unwrap(), "--timeout", "1", "--repeat", "1"];
    let ran = folder.relata(&arguments).expect(1);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 4, "{ran:?}");
    assert!(lines[..2].iter().all(|line| line["error"] == "timed out after 1 s"), "{ran:?}");
    assert!(lines[2..].iter().all(|line| line["rows"] == 1), "{ran:?}");
    assert!(ran.err.contains("2 of 4 queries failed"), "{ran:?}");
}

#[test]
fn a_query_past_its_memory_fails_and_the_next_ones_run() {
    let folder = Folder::shop();
    let pairs = "SELECT a.order_id * 1000 + b.order_id AS k FROM orders a, orders b";
    let large = format!("SELECT count(*) FROM ({pairs}) x JOIN ({pairs}) y ON x.k = y.k");
    let queries = folder.write("queries.sql", format!("{large}\nSELECT count(*) FROM town\n"));
    let arguments = ["run", "--queries", queries.to_str().unwrap(), "--repeat", "1", "--memory-limit", "500k"];
    let ran = folder.relata(&arguments).expect(1);
    let lines = ran.json_lines();
    assert!(lines[0]["error"].as_str().is_some_and(|error| error.contains("Resources exhausted")), "{ran:?}");
    assert_eq!(lines[1]["rows"], 1, "{ran:?}");
    let ran = folder.relata(&[&arguments[..5], &["--memory-limit", "1g"]].concat()).expect(0);
    assert_eq!(ran.json_lines().len(), 2);
}

#[test]
fn explain_shows_rows_of_both() {
    let folder = Folder::shop();
    let query = "SELECT * FROM orders o JOIN customer c ON o.customer_id = c.customer_id WHERE c.town_id = 2";
    let ran = folder.relata(&["explain", query]).expect(0);
    assert!(ran.out.contains("Join") && ran.out.contains("orders"), "{}", ran.out);
    folder.relata(&["explain", "SELECT FROM WHERE"]).expect(1);

    let ran = folder.relata(&["explain", "--analyze", query]).expect(0);
    assert!(ran.out.contains("actual=") && ran.out.contains("q_error=") && ran.out.contains("HashJoin"), "{}", ran.out);
    let file = folder.0.path().join("plan.svg");
    let drawn = file.to_str().unwrap();
    folder.relata(&["explain", "--svg", drawn, query]).expect(0);
    let svg = fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("orders") && svg.trim_end().ends_with("</svg>"), "{svg}");
    folder.relata(&["explain", "--svg", drawn, "--analyze", query]).expect(2);
    folder.relata(&["explain", "--svg", "/no/such/folder/plan.svg", query]).expect(1);
}

#[test]
fn the_shell_goes_on_after_errors() {
    use std::io::Write;
    let folder = Folder::shop();
    let mut command = folder.command(&["sql", "--format", "csv", "--quiet"]);
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let script =
        "SELECT count(*) AS n\n  FROM orders; SELECT ';' AS s;\nSELECT nothing;\n\\d town\n\\x\nSELECT 3 AS last";
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ran = Ran::from(shell.wait_with_output().unwrap()).expect(1);
    assert_eq!(ran.out.lines().collect::<Vec<_>>()[..4], ["n", "200", "s", ";"]);
    assert!(ran.out.contains("town_id  Int64") && ran.out.ends_with("last\n3\n"), "{}", ran.out);
    assert!(ran.err.contains("nothing") && ran.err.contains("\\x"), "{}", ran.err);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = Folder::shop();
    let query = "SELECT a.order_id FROM orders a, orders b, orders c LIMIT 1000000";
    let mut command = folder.command(&["sql", "--format", "csv", "--quiet", query]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(ran.err, "");
}

#[test]
fn wrong_arguments_exit_with_2() {
    let folder = Folder::empty();
    folder.relata(&["dance"]).expect(2);
    folder.relata(&["run", "--queries", "x", "--compare", "--optimizer", "default"]).expect(2);
    folder.relata(&["run", "--queries", "x", "--timeout", "-1"]).expect(2);
}

#[test]
fn a_small_demo_runs_through_and_is_kept() {
    let cache = TempDir::new().unwrap();
    let demo = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relata"));
        command.args(["demo", "--rows", "5000", "--threads", "2", "--cache"]).arg(cache.path());
        Ran::from(command.output().unwrap()).expect(0)
    };
    let ran = demo();
    assert!(ran.err.contains("generating about 5000 rows") && ran.out.contains("total of 12 queries"), "{ran:?}");
    let again = demo();
    assert!(!again.err.contains("generating"), "{again:?}");
    let kept: Vec<PathBuf> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    damage(&kept[0].join("orders.parquet"));
    let ran = demo();
    assert!(ran.err.contains("is damaged and made anew"), "{ran:?}");
}

#[test]
fn tuned_weights_are_used_replaced_and_dropped() {
    let folder = Folder::shop();
    let profiles = folder.0.path().join("profiles");
    let queries: String = (0..24)
        .map(|i| {
            format!(
                "SELECT * FROM orders o JOIN customer c ON o.customer_id = c.customer_id \
                 WHERE c.town_id = {} AND o.amount < {}\n",
                i % 4,
                i + 2
            )
        })
        .collect();
    let queries = folder.write("queries.sql", queries + "SELECT nothing FROM orders\n{broken\n");
    let queries = queries.to_str().unwrap();
    let estimates = || {
        let ran = folder.relata(&["estimate", "--queries", queries]).expect(1);
        let rows: Vec<Option<f64>> = ran.json_lines().iter().map(|line| line["estimate"].as_f64()).collect();
        (rows, ran.err)
    };
    let (before, _) = estimates();

    // Without a step nothing changes, so that nothing can help.
    let ran = folder.relata(&["tune", "--queries", queries, "--steps", "0"]).expect(0);
    assert!(ran.out.contains("24 queries learned from, 2 skipped (the first: "), "{}", ran.out);
    assert!(ran.out.contains("24 held-out queries") && ran.out.contains("rejected: "), "{}", ran.out);
    assert!(!profiles.join("tuned.json").exists());
    let few = folder.write("few.sql", "SELECT count(*) FROM orders WHERE amount < 3\n");
    let ran = folder.relata(&["tune", "--queries", few.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("1 labelled queries, 20 are needed"), "{ran:?}");

    let relata = relata::Relata::pretrained().unwrap().with_profile_directory(&profiles);
    let base = relata.experts().unwrap();
    let moved: Vec<f32> = base.parameters().iter().map(|value| value * 1.05).collect();
    let tuned = ExpertStack::from_parameters(base.data().clone(), base.config(), &moved, base.conformal()).unwrap();
    relata.save_tuned(&tuned, &TunedManifest::default()).unwrap();
    let (with_tuned, err) = estimates();
    assert!(with_tuned != before && !err.contains("warning"), "{err}");
    damage(&profiles.join("tuned.safetensors"));
    let (with_damaged, err) = estimates();
    assert!(with_damaged == before && err.contains("the pretrained weights are used"), "{err}");
    let ran = folder.relata(&["tune", "--drop"]).expect(0);
    assert_eq!(ran.out, "the tuned weights are removed\n");
    let (without, err) = estimates();
    assert!(without == before && !err.contains("warning"), "{err}");
    assert_eq!(folder.relata(&["tune", "--drop"]).expect(0).out, "there are no tuned weights\n");
    folder.relata(&["tune"]).expect(2);
}

fn damage(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 20]).unwrap();
}

#[test]
fn columns_are_predicted() {
    let folder = Folder::shop();
    let target = "SELECT customer_id, CASE WHEN town_id < 2 THEN 'west' ELSE 'east' END AS side FROM customer \
                  WHERE customer_id < 115";
    let entities = "SELECT customer_id FROM customer WHERE customer_id >= 115";
    let given = ["predict", "--target", target, "--entities", entities, "--features", "4", "--format"];
    let ran = folder.relata(&[&given[..], &["json"]].concat()).expect(0);
    let rows = ran.json_lines();
    assert_eq!(rows.len(), 5);
    assert_eq!((&rows[0]["customer_id"], &rows[0]["examples"]), (&115.into(), &15.into()));
    let shares = ["west", "east"].map(|side| rows[0]["probabilities"][side].as_f64().unwrap());
    assert!((shares[0] + shares[1] - 1.0).abs() < 1e-3, "{shares:?}");
    assert!(ran.err.contains("from 15 examples") && !ran.err.contains("customer.town_id"), "{ran:?}");
    let task = format!(
        r#"{{"target": {target:?}, "entities": "SELECT 1", "features": 4, "depth": 1, "hide": ["orders.amount"]}}"#
    );
    let task = folder.write("task.json", task);
    let given = ["predict", "--task", task.to_str().unwrap(), "--entities", entities, "--format", "csv"];
    let ran = folder.relata(&given).expect(0);
    assert!(ran.out.starts_with("customer_id,prediction,probability,probabilities,examples,features\n115,"), "{ran:?}");
    assert!(!ran.err.contains("amount"), "{ran:?}");
    let numbers = "SELECT customer_id, avg(amount) FROM orders WHERE customer_id < 115 GROUP BY customer_id";
    let ran = folder.relata(&["predict", "--target", numbers, "--entities", entities, "--features", "4"]).expect(0);
    assert!(ran.out.contains("| quantiles") && ran.out.contains("| 119 "), "{ran:?}");
    let sql =
        format!("SELECT count(*) AS n FROM PREDICT(target => ({target}), entities => ({entities}), features => 2)");
    assert!(folder.relata(&["sql", "--format", "csv", &sql]).expect(0).out.contains("n\n5\n"));
}

#[test]
fn tasks_that_are_wrong_are_named() {
    let folder = Folder::shop();
    let task = folder.write("task.json", r#"{"target": "SELECT customer_id, name FROM customer", "depht": 1}"#);
    let ran = folder.relata(&["predict", "--task", task.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("task.json") && ran.err.contains("depht"), "{ran:?}");
    let task = folder.write("task.json", r#"{"target": "SELECT customer_id, name FROM customer"}"#);
    let ran = folder.relata(&["predict", "--task", task.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("names no entities query"), "{ran:?}");
    let given = ["--target", "SELECT customer_id, town_id FROM customer", "--entities", "SELECT 1", "--depth", "9"];
    let ran = folder.relata(&[&["predict"], &given[..]].concat()).expect(1);
    assert!(ran.err.contains("depth is 9, allowed are 1 to 3"), "{ran:?}");
    folder.relata(&["predict", "--target", "SELECT 1"]).expect(2);
}
