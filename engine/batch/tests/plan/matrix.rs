//! Cells.

use crate::maker::*;

#[test]
fn cells_go_in_the_order_of_the_axes_the_last_fastest() {
    let plan = planned(|m| {
        let mut keys = m.run("", "echo {b}{a}");
        keys.matrix = m.matrix(&[("b", &["1", "2"]), ("a", &["x", "y"])], &[], &[]);
        m.job(keys);
    });
    assert_eq!(
        names(&plan),
        ["job-1-1-x", "job-1-1-y", "job-1-2-x", "job-1-2-y"]
    );
    assert_eq!(lines(&plan)[1], "echo '1''y'");
}

#[test]
fn include_and_exclude_do_what_github_documents() {
    let plan = planned(|m| {
        let mut keys = m.run("", "make");
        keys.matrix = m.matrix(
            &[("fruit", &["apple", "pear"]), ("animal", &["cat", "dog"])],
            &[
                &[("color", "green")],
                &[("color", "pink"), ("animal", "cat")],
                &[("fruit", "apple"), ("shape", "circle")],
                &[("fruit", "banana")],
                &[("fruit", "banana"), ("animal", "cat")],
            ],
            &[],
        );
        m.job(keys);
    });
    let expected = [
        "job-1-apple-cat-pink-circle",
        "job-1-apple-dog-green-circle",
        "job-1-pear-cat-pink",
        "job-1-pear-dog-green",
        "job-1-banana",
        "job-1-banana-cat",
    ];
    assert_eq!(names(&plan), expected);

    let plan = planned(|m| {
        let mut keys = m.run("", "make");
        let os: &[&str] = &["linux", "mac"];
        let include: &[&[_]] = &[&[("os", "mac"), ("arch", "arm"), ("x", "1")]];
        let exclude: &[&[_]] = &[&[("os", "mac")], &[("os", "linux"), ("arch", "arm")]];
        keys.matrix = m.matrix(&[("os", os), ("arch", &["x86", "arm"])], include, exclude);
        m.job(keys);
        let mut keys = m.run("only-{k}", "make");
        keys.matrix = m.matrix(&[], &[&[("k", "1")], &[("k", "2")]], &[]);
        m.job(keys);
    });
    assert_eq!(
        names(&plan),
        ["job-1-linux-x86", "job-1-mac-arm-1", "only-1", "only-2"]
    );
}

#[test]
fn a_matrix_with_mistakes_is_refused() {
    let with =
        |axes: &'static [(&str, &[&str])], include: &'static [&[_]], exclude: &'static [&[_]]| {
            move |m: &mut Maker| {
                let mut keys = m.run("", "make");
                keys.matrix = m.matrix(axes, include, exclude);
                m.job(keys);
            }
        };
    let (axes, none): (&[(&str, &[&str])], &[&[_]]) = (&[("a", &["1"])], &[]);
    let wrong = with(axes, none, &[&[("b", "1")]]);
    one_mistake(wrong, "\"b\"", "`exclude` gives `b`, which is no axis");
    let wrong = with(&[("cpus", &["1"])], none, none);
    one_mistake(wrong, "\"cpus\"", "a matrix key cannot be called `cpus`");
    let wrong = with(axes, &[&[("name", "1")]], none);
    one_mistake(wrong, "\"name\"", "a matrix key cannot be called `name`");
    let wrong = with(&[("a b", &["1"])], none, none);
    one_mistake(
        wrong,
        "\"a b\"",
        "no placeholder can name the matrix key `a b`",
    );
    let wrong = with(axes, none, &[&[("a", "1")]]);
    one_mistake(
        wrong,
        "matrix",
        "this matrix has no cells, so the job never runs",
    );
    let wrong = with(&[("a", &["1", "2", "1"])], none, none);
    one_mistake(
        wrong,
        "[[job]]",
        "2 cells of this matrix are called `job-1-1`",
    );
}

#[test]
fn too_many_cells_are_refused_before_they_are_made() {
    let values: Vec<String> = (0..1000).map(|value| value.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let make = |m: &mut Maker| {
        let mut keys = m.run("", "make");
        let axes: Vec<(&str, &[&str])> = ["a", "b", "c", "d"].map(|key| (key, &*values)).to_vec();
        keys.matrix = m.matrix(&axes, &[], &[]);
        m.job(keys);
    };
    one_mistake(
        make,
        "matrix",
        "this matrix has 1000000000000 cells; 10000000 is the most",
    );
}

#[test]
fn a_key_that_a_cell_lacks_is_refused_where_it_is_used() {
    let make = |m: &mut Maker| {
        let mut keys = m.run("x-{a}", "echo \"{a} {color}\"");
        keys.matrix = m.matrix(
            &[("a", &["1", "2"])],
            &[&[("a", "2"), ("color", "red")]],
            &[],
        );
        m.job(keys);
    };
    one_mistake(make, "{color}", "`{color}` has no value in the cell a=1");
}
