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

#[test]
fn every_example_of_the_providers_page_is_taken() {
    let page = std::fs::read_to_string(root().join("docs/providers.md")).expect("docs/providers.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let providers = folder.path().join("providers");
    std::fs::create_dir(&providers).expect("made");
    for block in &blocks {
        if let Some(name) = block.lines().next().and_then(|line| line.strip_prefix("# providers/")) {
            std::fs::write(providers.join(name), block).expect("written");
        }
    }
    let definitions = config::definitions(&providers, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let own: Vec<_> = definitions.iter().filter(|definition| definition.file.is_some()).collect();
    let odd: Vec<_> = own.iter().flat_map(|definition| &definition.warnings).collect();
    assert!(own.len() > 5 && odd.is_empty(), "{odd:?}");
    // The key files of an example are not there.
    let env = |_: &str| Some("set".to_owned());
    for block in blocks.iter().filter(|block| !block.starts_with("# providers/") && !block.contains("${file:")) {
        assert!(block.starts_with("# routes.yaml\n"), "an example says which file it is of:\n{block}");
        if let Err(errors) = config::load_str(block, Path::new("routes.yaml"), folder.path(), &env) {
            panic!("{errors}\n--\n{block}");
        }
    }
}

#[test]
fn the_config_of_the_kubernetes_example_is_right() {
    let manifests = std::fs::read_to_string(root().join("examples/kubernetes/printpixie.yaml")).expect("the example");
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = [
        ("database-url", "postgres://attache:hunter2@postgres.default.svc/attache"),
        ("key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("admin-token", "0123456789abcdef0123456789abcdef"),
        ("google-client-id", "id"),
        ("google-client-secret", "secret"),
    ];
    for (name, value) in secrets {
        std::fs::write(folder.path().join(name), value).expect("written");
        assert!(manifests.contains(&format!("${{file:/run/secrets/attache/{name}}}")), "{name} is not used");
    }
    let block = manifests.split("routes.yaml: |\n").nth(1).and_then(|rest| rest.split("\n---").next()).expect("the config");
    let config: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let config = config.replace("/run/secrets/attache", &folder.path().display().to_string());
    let file = folder.path().join("routes.yaml");
    std::fs::write(&file, config).expect("written");
    let snapshot = config::load(&file, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(snapshot.route_list.len(), 2);
    assert!(snapshot.startup.store.shared().is_some());
}
