//! The files that ship beside the binary: each works as it is.

use attache::config;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn routes_yaml_starts_as_it_is_with_the_optional_providers_off() {
    let snapshot = config::load(&root().join("routes.yaml"), &|_| None).expect("the shipped routes.yaml is right");
    let off: Vec<_> = snapshot.providers.values().filter(|provider| provider.off.is_some()).map(|provider| &*provider.id).collect();
    assert_eq!(off, ["box", "google", "microsoft"]);
    assert!(snapshot.providers["sandbox"].off.is_none());
}

#[test]
fn routes_yaml_wakes_up_its_providers_when_their_variables_are_set() {
    let snapshot =
        config::load(&root().join("routes.yaml"), &|name| (!name.starts_with("ATTACHE")).then(|| "set".to_owned())).expect("right");
    assert!(snapshot.providers.values().all(|provider| provider.off.is_none()), "{:?}", snapshot.warnings);
}

#[test]
fn the_committed_schema_is_the_one_that_the_program_prints() {
    let committed = std::fs::read_to_string(root().join("docs/routes.schema.json")).expect("docs/routes.schema.json");
    assert_eq!(committed, format!("{:#}\n", config::schema()), "run: attache schema > docs/routes.schema.json");
}

#[test]
fn the_guide_quotes_the_connect_examples_as_they_are() {
    let guide = std::fs::read_to_string(root().join("docs/connect.md")).expect("docs/connect.md");
    for (file, language) in [("connect.py", "python"), ("connect.mjs", "js")] {
        let example = std::fs::read_to_string(root().join("examples").join(file)).expect(file);
        let lines: Vec<_> = example.lines().collect();
        let at = |marker: &str| lines.iter().position(|line| line.contains(marker)).expect(marker);
        let quoted = lines[at("--- the connect flow") + 1..at("--- to here ---")].join("\n");
        assert!(
            guide.contains(&format!("```{language}\n{quoted}\n```\n")),
            "docs/connect.md does not quote examples/{file} between its markers"
        );
    }
}
