//! How urgent a ticket is, and how people say it.
//!
//! In: nothing. Out: [`URGENCIES`], per priority the sentences that carry it. They speak of impact and of
//! time only, never of the topic, so that any of them goes with any issue.

use super::Priority;

/// The ways to express one priority.
pub(crate) struct Urgency {
    /// The priority that all of these sentences mean.
    pub(crate) priority: Priority,
    /// Sentences with slots, used before or after the issue.
    pub(crate) wordings: &'static [&'static str],
}

/// One entry for each priority.
pub(crate) const URGENCIES: &[Urgency] = &[
    Urgency {
        priority: Priority::High,
        wordings: &[
            "This is urgent, we need help today.",
            "This is blocking our whole team right now.",
            "Nobody here can work until this is solved.",
            "We lose money every hour, please help immediately.",
            "Our customers are waiting and we have to stop work.",
            "Please treat this as urgent, all {count} of us are blocked.",
            "We are completely stuck and our deadline is today.",
            "I need an answer within the hour, everything stands still here.",
            "It is an emergency for us, please call me back immediately.",
            "Our shop is closed until this is fixed.",
            "The whole {city} office is stopped because of this.",
            "We have a deadline tonight and cannot go on without it.",
            "Please help as soon as you can, work has stopped completely.",
            "This is critical for us, it cannot wait until tomorrow.",
            "Please hurry, {count} people cannot work at the moment.",
            "We open in two hours and must have this solved by then.",
        ],
    },
    Urgency {
        priority: Priority::Medium,
        wordings: &[
            "We can work around it for a few days, but please look at it this week.",
            "It is annoying, but most of our work goes on.",
            "Please solve it within the next few days.",
            "It would help us to have this settled by the end of the week.",
            "It slows us down a bit, we can still work though.",
            "Not an emergency, but we need it this week.",
            "We have a workaround for now, it just costs us some time every day.",
            "Only {person} is affected, and we can manage until {day}.",
            "Please take a look in the next days, it bothers us every morning.",
            "It is not critical, still we would like an answer this week.",
            "We can manage for two or three days without it.",
            "Some of us are slowed down by it, so an answer this week would be good.",
            "It is a nuisance, so please do not leave it for too long.",
            "An answer in a few days is fine, but not much later.",
            "We get by for the moment, and would like it done before next week.",
            "Tomorrow or the day after is early enough, but please not later.",
        ],
    },
    Urgency {
        priority: Priority::Low,
        wordings: &[
            "There is no rush at all.",
            "No hurry, whenever you have time.",
            "It can wait, I am only curious.",
            "This is just a small thing, take your time.",
            "Nothing depends on it, so please take your time.",
            "It does not affect our work, I only wanted to mention it.",
            "Next month is early enough for us.",
            "It is not important, just a question in passing.",
            "Whenever somebody is free, it really can wait.",
            "No need to hurry, we are in no rush here.",
            "It is only a small detail and nobody is affected.",
            "I am asking out of curiosity, answer whenever it suits you.",
            "This can wait for weeks, I just wanted to let you know.",
            "We do not need it before {month}, so there is plenty of time.",
            "Please put it at the end of your list, it can wait.",
            "Some day would be nice, nothing urgent about it.",
        ],
    },
];
