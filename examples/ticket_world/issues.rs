//! What can go wrong in the world of the sample tickets, and how people say it.
//!
//! In: nothing. Out: [`ISSUES`], a table of issues; each belongs to one team, has a subject in a few
//! words, and several wordings with slots such as `{device}` that `fill` in the parent module fills.
//! A wording says what happened and nothing about how urgent it is.

use super::Team;

/// One thing that customers write about.
pub(crate) struct Issue {
    /// The team that solves it.
    pub(crate) team: Team,
    /// What it is about, in a few words.
    pub(crate) subject: &'static str,
    /// Ways to say it, each one or two sentences with slots.
    pub(crate) wordings: &'static [&'static str],
}

const fn issue(team: Team, subject: &'static str, wordings: &'static [&'static str]) -> Issue {
    Issue { team, subject, wordings }
}

/// Every issue, grouped by team, as many for each.
pub(crate) const ISSUES: &[Issue] = &[
    // Billing: invoices, charges, refunds, cards.
    issue(
        Team::Billing,
        "a double charge",
        &[
            "My card was charged twice for {month}, {money} each time.",
            "We see two charges of {money} on our card for the same month.",
            "You charged us twice in {month}. The second charge of {money} should not be there.",
        ],
    ),
    issue(
        Team::Billing,
        "a wrong invoice amount",
        &[
            "The {month} invoice shows {money}, but we agreed on a lower price.",
            "The amount on our last invoice is wrong: it says {money} instead of what is in the contract.",
            "Our invoice for {month} is too high. We have {count} users and you billed more than that.",
        ],
    ),
    issue(
        Team::Billing,
        "a missing refund",
        &[
            "The refund of {money} you promised in {month} has not reached our bank account.",
            "I am still waiting for my refund of {money}. Nothing has been paid back so far.",
            "You said the {money} would be refunded by {day}, but there is no refund on my card.",
        ],
    ),
    issue(
        Team::Billing,
        "a failed card payment",
        &[
            "Our card payment of {money} is declined every time, although the bank says the card is fine.",
            "The payment page refuses my credit card. The payment failed three times on {day}.",
            "I tried to pay the invoice by card and the payment did not go through.",
        ],
    ),
    issue(
        Team::Billing,
        "the tax number on an invoice",
        &[
            "The invoice for {month} does not show our tax number. Please send a corrected invoice.",
            "Our tax number is missing on the last two invoices and our accountant cannot book them.",
            "Could you put the tax number of our {city} office on the invoice and send it again?",
        ],
    ),
    issue(
        Team::Billing,
        "a missing receipt",
        &[
            "I cannot find the receipt for the payment I made in {month}. Could you send it to me?",
            "Our accountant asks for the receipt of {money} paid on {day}.",
            "Where do I get a receipt for my last payment? I need it for my expenses.",
        ],
    ),
    issue(
        Team::Billing,
        "an old credit card on file",
        &[
            "Our credit card expires in {month} and I want to pay the invoices with another card.",
            "Please change how we pay: from the old credit card to a bank transfer, starting in {month}.",
            "I would like to replace the credit card that you charge every month.",
        ],
    ),
    issue(
        Team::Billing,
        "a charge after cancelling",
        &[
            "We cancelled in {month}, and still {money} was charged to our card on {day}.",
            "I ended my subscription weeks ago but I was billed {money} again.",
            "There is a new charge of {money} although the subscription was cancelled.",
        ],
    ),
    // Accounts: signing in, passwords, codes, who may see what.
    issue(
        Team::Accounts,
        "a forgotten password",
        &[
            "I forgot my password and the reset email never arrives.",
            "The link in the password reset email says it has expired, each time I try.",
            "My colleague {person} cannot reset the password, the reset page shows an empty form.",
        ],
    ),
    issue(
        Team::Accounts,
        "a locked account",
        &[
            "My account is locked after too many sign-in attempts.",
            "The account of {person} was locked on {day} and we cannot unlock it ourselves.",
            "It says my account is locked. I did not change anything since {day}.",
        ],
    ),
    issue(
        Team::Accounts,
        "sign-in codes that do not arrive",
        &[
            "The sign-in code by text message does not arrive on my phone.",
            "I bought a new phone and no longer get the sign-in codes.",
            "When I log in, the six digit code is always rejected as wrong.",
        ],
    ),
    issue(
        Team::Accounts,
        "a change of email address",
        &[
            "I would like to change the email address that I log in with.",
            "{person} has married and needs a new email address and name on the account.",
            "Our company has a new domain, so the login email addresses of {count} users must change.",
        ],
    ),
    issue(
        Team::Accounts,
        "the rights of a user",
        &[
            "{person} should be an administrator, but I am not allowed to change user rights.",
            "Please give {person} access to our {city} workspace, the user has no rights there.",
            "A new colleague needs the same user rights as {person} has.",
        ],
    ),
    issue(
        Team::Accounts,
        "a former employee's user",
        &[
            "{person} has left our company. Please remove this user and move the login to me.",
            "A former employee can still log in. The user {person} should be removed.",
            "Please close the user account of {person}, who no longer works here.",
        ],
    ),
    issue(
        Team::Accounts,
        "a login from an unknown place",
        &[
            "I got a notice about a login to my account from {city}, and that was not me.",
            "Somebody logged in to our account on {day} from a place we do not know.",
            "There is a strange sign-in from {city} on my account page, at night.",
        ],
    ),
    issue(
        Team::Accounts,
        "single sign-on",
        &[
            "Single sign-on with our company login sends us back to the login page.",
            "Since {day} our users cannot log in through single sign-on.",
            "We want our {count} users to log in with single sign-on, and the setup page rejects our certificate.",
        ],
    ),
    // Delivery: parcels on their way.
    issue(
        Team::Delivery,
        "a late parcel",
        &[
            "Our parcel should have been delivered on {day} and it is still not here.",
            "The delivery of order {number} is late. The tracking page has not changed since {day}.",
            "We ordered a {device} in {month} and the parcel has not arrived.",
        ],
    ),
    issue(
        Team::Delivery,
        "a lost parcel",
        &[
            "The courier says the parcel with our {device} was lost in {city}.",
            "Tracking says delivered, but nobody here has received parcel {number}.",
            "My parcel has disappeared. The courier cannot find it anywhere in {city}.",
        ],
    ),
    issue(
        Team::Delivery,
        "a wrong delivery address",
        &[
            "Order {number} is going to our old address. Please send it to our {city} office instead.",
            "I typed the wrong delivery address, the parcel has to go to {city}.",
            "Can you change the shipping address of order {number}? We have moved to {city}.",
        ],
    ),
    issue(
        Team::Delivery,
        "a missing item in a parcel",
        &[
            "The parcel arrived on {day}, but one {device} is missing from the box.",
            "We ordered {count} pieces and the parcel contained fewer than that.",
            "Order {number} was delivered without the cables that are on the packing list.",
        ],
    ),
    issue(
        Team::Delivery,
        "the wrong item in a parcel",
        &[
            "We got the wrong item: the box contains a {device} that we never ordered.",
            "You sent us the wrong parcel, it has the name of another customer on it.",
            "In order {number} we received the wrong colour and the wrong size.",
        ],
    ),
    issue(
        Team::Delivery,
        "a parcel stuck in customs",
        &[
            "Our parcel is stuck in customs in {city} and they ask for a paper from the sender.",
            "Customs holds order {number} because the shipping papers are incomplete.",
            "The courier wants a customs form for the parcel with the {device}.",
        ],
    ),
    issue(
        Team::Delivery,
        "a delivery date",
        &[
            "When will order {number} be delivered? The courier gives no date.",
            "Could the parcel come on {day} instead? Nobody is in the office to receive the delivery before.",
            "Please tell me the delivery day for our {device}, the tracking link does not work.",
        ],
    ),
    issue(
        Team::Delivery,
        "a damaged box",
        &[
            "The courier brought a box that was crushed and open, so we refused the parcel.",
            "The box of order {number} was wet and torn when the courier delivered it.",
            "Our parcel arrived in {city} with a hole in the box and the courier wrote a report.",
        ],
    ),
    // Hardware: devices that break.
    issue(
        Team::Hardware,
        "a device that does not turn on",
        &[
            "The {device} does not turn on any more, the light stays dark.",
            "Since {day} our {device} is dead. I tried another power cable.",
            "My {device} switches itself off after a minute and then does not turn on.",
        ],
    ),
    issue(
        Team::Hardware,
        "a broken screen",
        &[
            "The screen of our {screen} has a crack from one corner to the other.",
            "The {screen} fell down in our {city} office and the screen is broken.",
            "Half of the screen on the {screen} stays black.",
        ],
    ),
    issue(
        Team::Hardware,
        "a weak battery",
        &[
            "The battery of the {portable} is empty after one hour.",
            "Our {portable} no longer charges, the battery stays at {count} percent.",
            "The battery of my {portable} gets very hot when it charges.",
        ],
    ),
    issue(
        Team::Hardware,
        "a noisy fan",
        &[
            "The fan of the {fan} makes a loud noise all day.",
            "Our {fan} rattles and the fan seems to be broken.",
            "There is a grinding noise from the fan inside the {fan} since {day}.",
        ],
    ),
    issue(
        Team::Hardware,
        "a paper jam",
        &[
            "The {printer} jams on every second label and the roller looks worn.",
            "There is a paper jam in the {printer} and a plastic part broke off.",
            "The roller of our {printer} is worn out, so the paper jams.",
        ],
    ),
    issue(
        Team::Hardware,
        "a broken button or plug",
        &[
            "The power button of the {device} is stuck.",
            "The charging plug of our {portable} is loose and has bent pins.",
            "Two buttons on the {device} do not react when I press them.",
        ],
    ),
    issue(
        Team::Hardware,
        "a spare part",
        &[
            "I need a spare power cable for the {device}, the old one is broken.",
            "Where can we get a spare battery cover and screws for our {portable}?",
            "The stand of the {screen} broke off. Do you have this spare part?",
        ],
    ),
    issue(
        Team::Hardware,
        "a device under warranty",
        &[
            "Our {device} broke after {count} weeks. We want it repaired under warranty.",
            "Please repair the {device} under warranty, its cover is broken.",
            "How do I send a broken {device} to you for a warranty repair?",
        ],
    ),
    // Software: the application and its data.
    issue(
        Team::Software,
        "an application that crashes",
        &[
            "{app} crashes as soon as I open the {page} page.",
            "Since the update on {day}, {app} closes by itself with a crash message.",
            "{app} freezes and then crashes when I click on save.",
        ],
    ),
    issue(
        Team::Software,
        "an error message",
        &[
            "{app} shows error {code} when I save the {page} page.",
            "We get the error message \"something went wrong\" in {app} since {day}.",
            "An error {code} appears whenever {person} opens {app}.",
        ],
    ),
    issue(
        Team::Software,
        "an export that fails",
        &[
            "The export of the {page} page to a spreadsheet stops at {count} percent.",
            "When I export our data from {app}, the file is empty.",
            "The export file from {app} has broken letters in the name column.",
        ],
    ),
    issue(
        Team::Software,
        "data that does not sync",
        &[
            "{app} does not sync, changes from {day} are not shown to my colleagues.",
            "The data of our {city} office does not sync with {app}.",
            "After the update the sync between {app} and our calendar stopped.",
        ],
    ),
    issue(
        Team::Software,
        "a slow page",
        &[
            "The {page} page in {app} takes a minute to load.",
            "{app} has become very slow since the last update, above all the search.",
            "Loading the {page} page is slow and often ends with a blank page.",
        ],
    ),
    issue(
        Team::Software,
        "a wrong number in a report",
        &[
            "The report on the {page} page adds up the numbers wrongly, a bug I think.",
            "There is a bug in {app}: the chart for {month} shows the numbers of another month.",
            "The filter in {app} is buggy, it ignores the date that I choose.",
        ],
    ),
    issue(
        Team::Software,
        "a failing integration",
        &[
            "Calls to your programming interface return error {code} since {day}.",
            "The webhook from {app} to our own system no longer fires.",
            "Our script that reads data through your interface gets error {code}.",
        ],
    ),
    issue(
        Team::Software,
        "a wish for a feature",
        &[
            "It would be good if {app} had a dark mode and larger letters.",
            "Could you add a keyboard shortcut for the {page} page in {app}?",
            "We miss a feature in {app}: sorting the {page} page by date.",
        ],
    ),
    // Sales: buying more, prices, contracts before they exist.
    issue(
        Team::Sales,
        "a quote",
        &[
            "Could you send us a quote for {count} licences of the {plan} plan?",
            "We need a written quote for {count} new {device} units.",
            "Please make us an offer for the {plan} plan with {count} seats.",
        ],
    ),
    issue(
        Team::Sales,
        "an upgrade",
        &[
            "We want to upgrade from our plan to the {plan} plan.",
            "Our company grows and we would like to buy {count} more seats.",
            "How can we upgrade to the {plan} plan, and what would we gain?",
        ],
    ),
    issue(
        Team::Sales,
        "a demo",
        &[
            "Could somebody show us a demo of the {plan} plan on {day}?",
            "We are thinking about buying the {plan} plan and would like a demo for {count} people.",
            "My boss {person} would like to see a demo before we buy.",
        ],
    ),
    issue(
        Team::Sales,
        "a discount",
        &[
            "Do you offer a discount for schools? We would buy {count} licences.",
            "Is there a discount when we buy {count} seats for two years?",
            "We have an offer from another vendor. Can you give us a discount on the {plan} plan?",
        ],
    ),
    issue(
        Team::Sales,
        "prices and plans",
        &[
            "What is the price of the {plan} plan for {count} people?",
            "I compare your plans: which features does the {plan} plan have that the smaller one lacks?",
            "Your price list does not say what the {plan} plan costs in {city}.",
        ],
    ),
    issue(
        Team::Sales,
        "a trial",
        &[
            "We would like to try the {plan} plan before buying it. Can we get a trial?",
            "Our free trial of the {plan} plan ends on {day} and we would like to extend it before we buy.",
            "Is there a trial of the {plan} plan for {count} people?",
        ],
    ),
    issue(
        Team::Sales,
        "a reseller",
        &[
            "We would like to sell your products in {city}. Who talks to new resellers?",
            "Do you have a partner programme for resellers in {city}?",
            "I want to become a reseller of the {plan} plan. Please send me your terms.",
        ],
    ),
    issue(
        Team::Sales,
        "a large order",
        &[
            "We plan to buy {count} {device} units for our {city} office, whom do I talk to about prices?",
            "Our company wants to order {count} licences at once and would like to talk to sales.",
            "I would like a meeting about buying the {plan} plan for the whole company.",
        ],
    ),
];
