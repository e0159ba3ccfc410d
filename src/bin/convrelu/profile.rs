//! The table of the time that a training step spends on each kind of layer.

use convrelu::train::{LayerKind, Profile, ProfilePart};

use crate::output::Table;

/// Share of the time per kind of layer and direction.
pub(crate) fn table(profile: &Profile) -> Table {
    let parts = profile.parts();
    let total = parts.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>().max(1e-9);
    let of = |wanted: &dyn Fn(ProfilePart) -> bool| {
        parts.iter().filter(|(part, _)| wanted(*part)).map(|(_, time)| time.as_secs_f64()).sum::<f64>()
    };
    let share = |seconds: f64| if seconds > 0.0 { format!("{:.1}", 100.0 * seconds / total) } else { String::new() };
    let mut table = Table::new(["part", "seconds", "forward %", "backward %", "all %"]);
    for &kind in LayerKind::ALL_VALUES {
        let (forward, backward) =
            (of(&|part| part == ProfilePart::Forward(kind)), of(&|part| part == ProfilePart::Backward(kind)));
        let both = forward + backward;
        if both > 0.0 {
            table.row([kind.to_string(), format!("{both:.2}"), share(forward), share(backward), share(both)]);
        }
    }
    for (name, part) in
        [("loss", ProfilePart::Loss), ("optimiser", ProfilePart::Optimizer), ("data", ProfilePart::Data)]
    {
        let seconds = of(&|other| other == part);
        table.row([name.to_owned(), format!("{seconds:.2}"), String::new(), String::new(), share(seconds)]);
    }
    table
}
