//! Machines of the project's own, in `machines/`: kinds that nobody here has, as their makers and
//! users describe them.

/// Each with its name and its description for `Topology::synthetic`.
pub fn fixtures() -> impl Iterator<Item = (&'static str, String)> {
    const FILES: [(&str, &str); 6] = [
        ("cxl-pool", include_str!("../machines/cxl-pool.txt")),
        (
            "eight-sockets",
            include_str!("../machines/eight-sockets.txt"),
        ),
        ("epyc-nps4", include_str!("../machines/epyc-nps4.txt")),
        ("kunpeng", include_str!("../machines/kunpeng.txt")),
        ("power9-gpus", include_str!("../machines/power9-gpus.txt")),
        (
            "sapphire-rapids-snc4-hbm",
            include_str!("../machines/sapphire-rapids-snc4-hbm.txt"),
        ),
    ];
    let described = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join(" ")
    };
    FILES
        .into_iter()
        .map(move |(name, text)| (name, described(text)))
}
