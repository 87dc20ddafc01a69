//! The names in the demo database.

/// A country: name, code, region (an index into [`REGIONS`]), currency, income level (0 = high .. 3 = low), population
/// in millions.
pub(super) type Country = (&'static str, &'static str, usize, &'static str, usize, f64);

pub(super) const REGIONS: [&str; 6] = ["Europe", "North America", "South America", "Asia", "Africa", "Oceania"];

pub(super) const INCOMES: [&str; 4] = ["high", "upper middle", "lower middle", "low"];

/// From the country with most customers to the one with fewest.
pub(super) const COUNTRIES: [Country; 48] = [
    ("United States", "US", 1, "USD", 0, 331.0),
    ("Germany", "DE", 0, "EUR", 0, 83.0),
    ("United Kingdom", "GB", 0, "GBP", 0, 67.0),
    ("India", "IN", 3, "INR", 2, 1380.0),
    ("France", "FR", 0, "EUR", 0, 67.0),
    ("Brazil", "BR", 2, "BRL", 1, 212.0),
    ("Japan", "JP", 3, "JPY", 0, 126.0),
    ("Canada", "CA", 1, "CAD", 0, 38.0),
    ("China", "CN", 3, "CNY", 1, 1402.0),
    ("Italy", "IT", 0, "EUR", 0, 60.0),
    ("Spain", "ES", 0, "EUR", 0, 47.0),
    ("Mexico", "MX", 1, "MXN", 1, 129.0),
    ("Australia", "AU", 5, "AUD", 0, 26.0),
    ("Netherlands", "NL", 0, "EUR", 0, 17.0),
    ("Poland", "PL", 0, "PLN", 0, 38.0),
    ("Indonesia", "ID", 3, "IDR", 2, 273.0),
    ("South Korea", "KR", 3, "KRW", 0, 52.0),
    ("Turkey", "TR", 3, "TRY", 1, 84.0),
    ("Sweden", "SE", 0, "SEK", 0, 10.0),
    ("Argentina", "AR", 2, "ARS", 1, 45.0),
    ("Nigeria", "NG", 4, "NGN", 2, 206.0),
    ("Switzerland", "CH", 0, "CHF", 0, 9.0),
    ("Belgium", "BE", 0, "EUR", 0, 12.0),
    ("Austria", "AT", 0, "EUR", 0, 9.0),
    ("South Africa", "ZA", 4, "ZAR", 1, 59.0),
    ("Vietnam", "VN", 3, "VND", 2, 97.0),
    ("Colombia", "CO", 2, "COP", 1, 51.0),
    ("Egypt", "EG", 4, "EGP", 2, 102.0),
    ("Thailand", "TH", 3, "THB", 1, 70.0),
    ("Norway", "NO", 0, "NOK", 0, 5.0),
    ("Denmark", "DK", 0, "DKK", 0, 6.0),
    ("Chile", "CL", 2, "CLP", 0, 19.0),
    ("Portugal", "PT", 0, "EUR", 0, 10.0),
    ("Finland", "FI", 0, "EUR", 0, 6.0),
    ("Ireland", "IE", 0, "EUR", 0, 5.0),
    ("Kenya", "KE", 4, "KES", 2, 54.0),
    ("New Zealand", "NZ", 5, "NZD", 0, 5.0),
    ("Peru", "PE", 2, "PEN", 1, 33.0),
    ("Morocco", "MA", 4, "MAD", 2, 37.0),
    ("Czechia", "CZ", 0, "CZK", 0, 11.0),
    ("Greece", "GR", 0, "EUR", 0, 11.0),
    ("Ghana", "GH", 4, "GHS", 2, 31.0),
    ("Ethiopia", "ET", 4, "ETB", 3, 115.0),
    ("Uruguay", "UY", 2, "UYU", 0, 3.0),
    ("Estonia", "EE", 0, "EUR", 0, 1.0),
    ("Fiji", "FJ", 5, "FJD", 1, 1.0),
    ("Luxembourg", "LU", 0, "EUR", 0, 1.0),
    ("Iceland", "IS", 0, "ISK", 0, 0.4),
];

/// A department: name, typical price, share of returned items, categories, and its brands.
pub(super) type Department = (&'static str, f64, f64, [&'static str; 7], [&'static str; 5]);

pub(super) const DEPARTMENTS: [Department; 8] = [
    (
        "Electronics",
        180.0,
        0.08,
        ["Headphones", "Laptops", "Phones", "Cameras", "Televisions", "Cables", "Tablets"],
        ["Nordwell", "Kenzara", "Voltix", "Asterion", "Pixelforge"],
    ),
    (
        "Home",
        60.0,
        0.05,
        ["Cookware", "Lamps", "Bedding", "Furniture", "Carpets", "Storage", "Curtains"],
        ["Hearthly", "Casa Lume", "Oakline", "Brightnest", "Nordhus"],
    ),
    (
        "Fashion",
        45.0,
        0.22,
        ["Shoes", "Dresses", "Shirts", "Jackets", "Bags", "Jeans", "Watches"],
        ["Velmora", "Atelier Nine", "Strade", "Loomcraft", "Northbay"],
    ),
    (
        "Books",
        16.0,
        0.02,
        ["Novels", "Textbooks", "Comics", "Cookbooks", "Travel Guides", "Biographies", "Poetry"],
        ["Lantern Press", "Quillhouse", "Meridian", "Paperfox", "Oldgate"],
    ),
    (
        "Music",
        22.0,
        0.02,
        ["Vinyl", "Guitars", "Drums", "Scores", "Keyboards", "Strings", "Microphones"],
        ["Tonewood", "Rhythmix", "Cantata", "Bluebell", "Resona"],
    ),
    (
        "Sports",
        55.0,
        0.09,
        ["Bicycles", "Tents", "Running", "Football", "Skis", "Yoga", "Swimming"],
        ["Peakline", "Trailborn", "Velocis", "Aquaris", "Summit Co"],
    ),
    (
        "Toys",
        25.0,
        0.04,
        ["Puzzles", "Board Games", "Dolls", "Model Trains", "Building Bricks", "Plush", "Kites"],
        ["Funfair", "Brickley", "Little Fox", "Wonderwerk", "Playmore"],
    ),
    (
        "Grocery",
        6.0,
        0.01,
        ["Coffee", "Tea", "Chocolate", "Spices", "Pasta", "Olive Oil", "Snacks"],
        ["Sunfield", "Terra Nostra", "Harvest", "Old Mill", "Spice Route"],
    ),
];

pub(super) const SEGMENTS: [&str; 4] = ["budget", "standard", "premium", "business"];

pub(super) const FIRST_NAMES: [&str; 40] = [
    "Anna",
    "Maria",
    "James",
    "John",
    "Wei",
    "Mohamed",
    "Fatima",
    "Lucas",
    "Sofia",
    "Emma",
    "Olivia",
    "Noah",
    "Liam",
    "Aisha",
    "Yuki",
    "Hiroshi",
    "Priya",
    "Arjun",
    "Chen",
    "Mei",
    "Carlos",
    "Juan",
    "Ana",
    "Pedro",
    "Ingrid",
    "Lars",
    "Sven",
    "Marta",
    "Piotr",
    "Katarzyna",
    "Giulia",
    "Marco",
    "Chloe",
    "Pierre",
    "Ngozi",
    "Kofi",
    "Amara",
    "Elena",
    "Dimitri",
    "Zoe",
];

pub(super) const LAST_NAMES: [&str; 40] = [
    "Smith",
    "Johnson",
    "Schmidt",
    "Schneider",
    "Schulz",
    "Martin",
    "Martinez",
    "Garcia",
    "Silva",
    "Santos",
    "Kumar",
    "Sharma",
    "Singh",
    "Wang",
    "Li",
    "Zhang",
    "Tanaka",
    "Sato",
    "Kim",
    "Park",
    "Nguyen",
    "Tran",
    "Rossi",
    "Russo",
    "Kowalski",
    "Nowak",
    "Andersson",
    "Johansson",
    "Hansen",
    "Jensen",
    "Okafor",
    "Mensah",
    "Diallo",
    "Dubois",
    "Moreau",
    "Brown",
    "Williams",
    "Wilson",
    "Jones",
    "Taylor",
];

pub(super) const MAIL_PROVIDERS: [&str; 6] = ["mail", "inbox", "postbox", "quickmail", "letterbox", "netpost"];

pub(super) const CITY_PREFIXES: [&str; 6] = ["", "", "", "Port ", "San ", "New "];

pub(super) const CITY_STEMS: [&str; 36] = [
    "Al", "Bel", "Bor", "Cal", "Cor", "Dar", "Del", "El", "Fal", "Gar", "Gran", "Hal", "Har", "Kal", "Kar", "Lan",
    "Mal", "Mar", "Mer", "Mon", "Nor", "Or", "Pal", "Par", "Ros", "Sal", "Sel", "Sol", "Tal", "Tor", "Val", "Ver",
    "Vil", "Wal", "Win", "Zar",
];

/// One list per region.
pub(super) const CITY_ENDINGS: [[&str; 5]; 6] = [
    ["burg", "heim", "ville", "stad", "ford"],
    ["ton", "field", "wood", "port", "ville"],
    ["ito", "ado", "ina", "ueva", "ores"],
    ["pur", "yama", "bad", "ang", "shima"],
    ["abi", "usa", "enza", "oko", "ani"],
    ["nui", "ton", "aroa", "bay", "dale"],
];

pub(super) const COLORS: [&str; 10] =
    ["black", "white", "blue", "red", "grey", "green", "brown", "silver", "pink", "yellow"];

pub(super) const MODELS: [&str; 12] =
    ["Classic", "Ultra", "Mini", "Pro", "Essential", "Travel", "Deluxe", "Sport", "Eco", "Max", "Studio", "Junior"];

/// Praise and blame, from one star to five.
pub(super) const OPINIONS: [[&str; 4]; 5] = [
    ["Terrible", "Broken", "Never again", "Waste of money"],
    ["Disappointing", "Poor", "Too expensive", "Not as described"],
    ["Okay", "Average", "Does the job", "Nothing special"],
    ["Good", "Solid", "Works well", "Good value"],
    ["Great", "Excellent", "Love it", "Great value"],
];

pub(super) const REMARKS: [&str; 10] = [
    "for the price",
    "as a gift",
    "after one week",
    "for travel",
    "for beginners",
    "and fast delivery",
    "but heavy",
    "for my kids",
    "every day",
    "as expected",
];
