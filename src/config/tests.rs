//! Tests of the configuration as a whole.

use std::io::Write as _;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn with_file(file: &tempfile::NamedTempFile) -> Flags {
    Flags { config: Some(file.path().display().to_string()), ..Flags::default() }
}

fn problems(flags: &Flags, variables: &[(&str, &str)]) -> Vec<String> {
    Loaded::load(flags, &environment(variables)).expect_err("refused").0
}

const DEV: &[(&str, &str)] = &[("GITMOOR_DEV", "1")];

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file =
        file("drain_timeout = '1s'\nlog_format = 'json'\nstore_cache_bytes = 2097152\nlisten = ['[::1]:1']");
    let flags = Flags { drain_timeout: Some("3s".into()), dev: true, ..with_file(&file) };
    let variables = [("GITMOOR_DRAIN_TIMEOUT", "2s"), ("GITMOOR_LOG_FORMAT", "text"), ("GITMOOR_LISTEN", "")];
    let loaded = Loaded::load(&flags, &environment(&variables)).expect("accepted");
    assert_eq!(loaded.config.drain_timeout, Duration::from_secs(3));
    assert_eq!(loaded.config.log_format, LogFormat::Text);
    assert_eq!(loaded.config.store_cache_bytes, 2 << 20);
    assert_eq!(
        loaded.config.listen,
        [ListenAddress::Tcp("[::1]:1".parse().expect("address"))],
        "empty is unset"
    );
    assert_eq!(loaded.config.max_concurrent_calls, 1_024);

    let printed = loaded.to_string();
    for line in [
        "drain_timeout = \"3s\" # --drain-timeout\n",
        "log_format = \"text\" # GITMOOR_LOG_FORMAT\n",
        &format!("store_cache_bytes = \"2MiB\" # {}, line 3\n", file.path().display()),
        "max_concurrent_calls = 1024 # default\n",
        "audit_retention = \"400d\" # default\n",
        "request_retention = \"1d\" # default\n",
        "data_dir = \"gitmoor-dev\" # --dev\n",
    ] {
        assert!(printed.contains(line), "{line:?} in {printed}");
    }
}

#[test]
fn what_is_printed_is_a_file_that_gives_the_same() {
    let flags = Flags {
        data_dir: Some("/var/lib/git \"moor\"\n".into()),
        key_file: Some("k".into()),
        listen: vec!["127.0.0.1:1".into(), "unix:/run/x".into()],
        egress_allow: ["10.0.0.0/8", "git.corp.example", "git.corp.example:8443", "http://[::1]:9001"]
            .map(str::to_owned)
            .to_vec(),
        webhook_target_allow: ["https://hooks.corp.example/git", "http://receiver:8080"]
            .map(str::to_owned)
            .to_vec(),
        stream_timeout: Some("90m".into()),
        ..Flags::default()
    };
    let loaded = Loaded::load(&flags, &Environment::default()).expect("accepted");
    let printed = file(&loaded.to_string());
    let again = Loaded::load(&with_file(&printed), &Environment::default()).expect("accepted");
    assert_eq!(again.config, loaded.config);
    for key in KEYS {
        assert!(loaded.to_string().contains(&format!("{key} = ")), "{key}");
    }
}

#[test]
fn o03_unknown_keys_wrong_types_and_repeated_keys_are_refused_all_at_once() {
    let file = file(
        "listn = ['127.0.0.1:1']\nlog-level = 'info'\nzzz = 1\ndev = true\ndrain_timeout = 15\nlisten = 'x'\n\
         data_dir = ['d']\nkey_file = 'k'\nmax_concurrent_calls = true\negress_allow = ['a', 1]\nkey_file = 'k'\n\
         webhook_target_allow = ['http://a/b']\n",
    );
    let problems = problems(&with_file(&file), &[("GITMOOR_LOG_FORMAT", "xml")]);
    for expected in [
        "line 1: unknown key listn; did you mean listen?",
        "line 2: unknown key log-level; did you mean log_level?",
        "line 3: unknown key zzz; the keys are listen,",
        "line 4: dev cannot stand in the file",
        "line 5): expected a text in quotes, found a number",
        "line 6): expected a list of texts, found a text",
        "line 7): expected a text in quotes, found a list",
        "line 9): expected a number or a text, found true or false",
        "line 10), entry 2: expected HOST",
        "line 11: duplicate key",
        "line 12), entry 1: expected https://HOST",
        "log_format (GITMOOR_LOG_FORMAT): expected json or text",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected:?} in {problems:#?}");
    }
    assert_eq!(problems.len(), 12, "{problems:#?}");
}

#[test]
fn o04_a_listener_for_other_machines_is_refused() {
    for address in ["0.0.0.0:50051", "[::]:50051", "192.168.1.1:50051"] {
        for dev in [true, false] {
            let flags = Flags {
                dev,
                listen: vec!["127.0.0.1:1".into(), address.into()],
                data_dir: Some("d".into()),
                key_file: Some("k".into()),
                ..Flags::default()
            };
            let problems = problems(&flags, &[]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].starts_with("listen, entry 2: callers are not authenticated"),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn without_dev_a_data_folder_and_a_key_file_are_required() {
    let problems = problems(&Flags::default(), &[]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("data_dir is required"), "{problems:?}");
    assert!(problems[1].contains("gitmoor keys init"), "{problems:?}");
    let dev = Loaded::load(&Flags::default(), &environment(DEV)).expect("accepted").config;
    assert_eq!((dev.data_dir, dev.key_file), ("gitmoor-dev".into(), "gitmoor-dev/dev.key".into()));
}

#[test]
fn s18_a_problem_never_repeats_the_value() {
    let canary = "glpat-CANARY0123456789";
    let file = file(&format!("log_level = '{canary}'\nlisten = ['{canary}']\ndrain_timeout = '{canary}"));
    let variables = [("GITMOOR_LOG_FORMAT", canary), ("GITMOOR_DEV", canary), ("RUST_LOG", "a=glpat-CANARY")];
    let rules = vec![format!("https://x:{canary}@host"), format!("{canary}/8")];
    let flags = Flags { stream_timeout: Some(canary.into()), egress_allow: rules, ..with_file(&file) };
    let error = Loaded::load(&flags, &environment(&variables)).expect_err("refused");
    assert!(error.problems().len() >= 7, "{error}");
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
}

#[test]
fn numbers_outside_their_range_are_refused() {
    let flags = Flags {
        dev: true,
        drain_timeout: Some("2h".into()),
        stream_timeout: Some("1s".into()),
        audit_retention: Some("23h".into()),
        request_retention: Some("59m".into()),
        max_concurrent_calls: Some("0".into()),
        store_cache_bytes: Some("1KiB".into()),
        ..Flags::default()
    };
    let problems = problems(&flags, &[]);
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert_eq!(problems[0], "drain_timeout (--drain-timeout): it must be at most 1h");
}

#[test]
fn an_address_twice_and_a_missing_file_are_refused() {
    let flags = Flags { listen: vec!["127.0.0.1:1".into(); 2], dev: true, ..Flags::default() };
    assert_eq!(problems(&flags, &[]), ["listen, entry 2: it is there twice"]);
    let flags = Flags { listen: vec!["127.0.0.1:0".into(); 2], dev: true, ..Flags::default() };
    assert!(Loaded::load(&flags, &Environment::default()).is_ok());
    let flags = Flags { config: Some("/nonexistent/x.toml".into()), dev: true, ..Flags::default() };
    let problems = problems(&flags, &[]);
    assert!(problems[0].starts_with("config: cannot read /nonexistent/x.toml"), "{problems:?}");
}

#[test]
fn lists_in_variables_are_separated_by_commas_and_misspelt_variables_are_told() {
    let variables = [
        ("GITMOOR_DEV", "true"),
        ("GITMOOR_LISTEN", "127.0.0.1:1, unix:/x,"),
        ("GITMOOR_LOG_LEVL", "debug"),
        ("GITMOOR_SERVICE_HOST", "10.0.0.1"),
        ("GITMOOR_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
    ];
    let loaded = Loaded::load(&Flags::default(), &environment(&variables)).expect("accepted");
    assert_eq!(loaded.config.listen.len(), 2);
    assert_eq!(loaded.warnings, ["the variable GITMOOR_LOG_LEVL is not read; GITMOOR_LOG_LEVEL is"]);
}

#[test]
fn rust_log_wins_over_the_level() {
    let level = |variables: &[(&str, &str)]| {
        Loaded::load(&Flags { dev: true, ..Flags::default() }, &environment(variables)).expect("accepted")
    };
    assert!(level(&[]).config.log_directives.starts_with("info,h2=warn,"));
    assert!(level(&[("GITMOOR_LOG_LEVEL", "debug")]).config.log_directives.starts_with("debug,"));
    let both = level(&[("GITMOOR_LOG_LEVEL", "debug"), ("RUST_LOG", "gitmoor=trace")]);
    assert_eq!(both.config.log_directives, "gitmoor=trace");
    assert_eq!(both.warnings, ["log_level has no effect, because RUST_LOG is set"]);
}

#[test]
fn the_example_file_holds_every_key_and_is_accepted() {
    let example = include_str!("../../deploy/config.example.toml");
    for key in KEYS {
        assert!(
            example.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} ="))),
            "{key}"
        );
    }
    let (_, problems) = file::ConfigFile::parse(std::path::Path::new("example"), example);
    assert_eq!(problems, Vec::<String>::new());
    // With every key switched on, too.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if KEYS.iter().any(|key| setting.starts_with(&format!("{key} ="))) => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let file = self::file(&all);
    Loaded::load(&with_file(&file), &Environment::default()).expect("accepted");
}
