//! What finding a route costs, by how many there are, and what comes before and after it on the path of a call.

use attache::route::{Found, Pattern, Rewrite, Table, path};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use std::hint::black_box;

/// A fleet of APIs: per service a list, an item, an item's part under a method of its own, and the rest.
fn routes(count: usize) -> Table<usize> {
    let texts = (0..count).map(|index| {
        let service = index / 4;
        match index % 4 {
            0 => format!("GET /service-{service}/v1/files"),
            1 => format!("GET /service-{service}/v1/files/{{id}}"),
            2 => format!("POST /service-{service}/v1/files/{{id}}/comments/{{comment}}"),
            _ => format!("/service-{service}/{{*rest}}"),
        }
    });
    let patterns = texts.map(|text| Pattern::parse(&text).expect("a match"));
    Table::build(patterns.enumerate().map(|(index, pattern)| (pattern, index)).collect()).expect("no overlap")
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for count in [10, 1_000, 10_000] {
        let table = routes(count);
        // Every eighth service, so that the look-ups do not all stay in the processor's nearest cache.
        let services = (0..count / 4).step_by(8);
        for (case, method, tail) in [
            ("literal", Method::GET, "v1/files"),
            ("captures", Method::POST, "v1/files/1FqhBcX9/comments/77"),
            // The deepest way back: three segments fit a route whose method does not, then the rest takes it.
            ("backtracking", Method::DELETE, "v1/files/1FqhBcX9/comments/77"),
        ] {
            let paths: Vec<String> = services.clone().map(|service| format!("/service-{service}/{tail}")).collect();
            let mut next = paths.iter().cycle();
            group.bench_function(BenchmarkId::new(case, count), |bencher| {
                bencher.iter(|| {
                    let path = next.next().expect("a cycle has no end");
                    let found = table.find(black_box(&method), Some("localhost"), black_box(path));
                    assert!(matches!(found, Found::Route { .. }));
                });
            });
        }
    }
    group.finish();
}

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path::check");
    for (case, path) in [
        ("ordinary", "/google/drive/v3/files/1FqhBcX9dZkQ7sW2/permissions"),
        ("escaped", "/google/drive/v3/files/a%2Fb%20c/.well-known/permissions"),
    ] {
        group.bench_function(case, |bencher| bencher.iter(|| path::check(black_box(path))));
    }
    group.finish();
}

fn rewrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    let pattern = Pattern::parse("GET /photos/google/{id}").expect("a match");
    let table = Table::build(vec![(pattern, ())]).expect("one route");
    let Found::Route { captures, .. } = table.find(&Method::GET, None, "/photos/google/1FqhBcX9") else { unreachable!("it matches") };
    let defaults = [("fields".to_owned(), "files(id,name)".to_owned())];
    for (case, rewrite) in [
        ("path alone", Rewrite::parse("/drive/v3/files/{id}", &[], &[], &["id"]).expect("an upstream")),
        ("path and query", Rewrite::parse("/drive/v3/files/{id}?alt=media", &defaults, &[], &["id"]).expect("an upstream")),
    ] {
        let mut out = String::new();
        group.bench_function(case, |bencher| {
            bencher.iter(|| {
                out.clear();
                rewrite.apply(black_box(&captures), black_box(Some("a=1&b=2")), None, &mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find, check, rewrite);
criterion_main!(benches);
