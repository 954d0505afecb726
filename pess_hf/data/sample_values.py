"""The slot values of the embedded corpus: for each topic the words of the train, validation and test splits.

Every value is one word and stands in one place only, so the words of one split never turn up in another.
"""

from __future__ import annotations

#: Topic -> split -> values.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {}


def _topic(name: str, train: str, validation: str, test: str) -> None:
    VALUES[name] = {
        "train": tuple(train.split()),
        "validation": tuple(validation.split()),
        "test": tuple(test.split()),
    }


_topic(
    "pet",
    "dog rabbit hamster parrot turtle goldfish pony goat lizard snake donkey canary duck hen lamb pig ferret gecko "
    "frog peacock pigeon beagle poodle terrier lobster rooster",
    "horse hedgehog falcon cow crab otter goose spaniel",
    "cat llama swan toad fox raven squirrel owl",
)
_topic(
    "job",
    "baker nurse plumber teacher pilot farmer dentist lawyer waiter barber tailor butcher carpenter florist librarian "
    "surgeon welder gardener cashier translator judge mechanic accountant banker porter miner",
    "firefighter photographer pharmacist bartender sailor editor electrician postman",
    "chef veterinarian detective jeweler roofer therapist programmer architect",
)
_topic(
    "family",
    "dancer painter soldier clown priest poet singer sculptor optician magician astronaut paramedic geologist "
    "novelist blacksmith juggler referee senator diplomat auctioneer cobbler beekeeper bishop acrobat stuntman "
    "announcer",
    "comedian composer wrestler mayor biologist drummer lifeguard hairdresser",
    "actor psychologist violinist monk engineer journalist glazier ballerina",
)
_topic(
    "food",
    "pizza sushi lasagna pancakes dumplings curry noodles risotto tacos burgers waffles salmon ravioli meatballs "
    "pudding omelettes pretzels hummus chili shrimp steak cheesecake gnocchi burritos goulash croissants",
    "spaghetti sandwiches falafel brownies muffins trout porridge kebab",
    "soup donuts paella sausages pie oysters lentils popcorn",
)
_topic(
    "drink",
    "coffee lemonade cocoa cider milk cola espresso smoothies ginger buttermilk punch soda mocha cappuccino broth "
    "kefir latte champagne beer wine sherry rum whiskey vodka eggnog bourbon",
    "tea brandy juice nectar gin milkshakes absinthe tonic",
    "cognac water kombucha tequila sake mead port oolong",
)
_topic(
    "hobby",
    "knitting fishing pottery camping hiking sewing juggling embroidery woodworking origami calligraphy birdwatching "
    "baking sketching stargazing whittling quilting canning scrapbooking genealogy beading blogging weaving carving "
    "foraging crochet",
    "photography astronomy drawing carpentry puzzles chess crosswords poetry",
    "gardening painting archery magic reading sculpting brewing geocaching",
)
_topic(
    "instrument",
    "piano violin trumpet flute harp synthesizer clarinet banjo cello accordion saxophone trombone organ ukulele "
    "harmonica mandolin tuba bassoon oboe lute xylophone sitar recorder bagpipe dulcimer keyboard",
    "guitar viola bugle fiddle marimba zither tambourine cornet",
    "bass harpsichord lyre piccolo triangle theremin horn kazoo",
)
_topic(
    "city",
    "Boston Paris Chicago Madrid Vienna Dublin Toronto Seattle Oslo Prague Denver Sydney Lisbon Cairo Houston Athens "
    "Moscow Mumbai Berlin Detroit Geneva Miami Bangkok Manila Glasgow Portland",
    "London Rome Dallas Helsinki Nairobi Montreal Munich Lima",
    "Tokyo Amsterdam Atlanta Warsaw Melbourne Havana Istanbul Brussels",
)
_topic(
    "vehicle",
    "van truck jeep taxi scooter tractor motorcycle limousine convertible pickup minivan sedan wagon camper trolley "
    "moped buggy cart sailboat canoe raft speedboat helicopter sled carriage hatchback",
    "motorbike kayak bus roadster trailer snowmobile barge glider",
    "bicycle yacht coupe ambulance tandem rowboat tricycle airplane",
)
_topic(
    "sport",
    "tennis soccer basketball hockey rugby cricket boxing karate golf volleyball swimming rowing fencing judo "
    "wrestling badminton gymnastics sprinting surfing skating cycling polo squash lacrosse softball bowling",
    "football diving curling triathlon handball weightlifting snowboarding croquet",
    "baseball skiing marathon climbing taekwondo sailing billiards darts",
)
_topic(
    "language",
    "Spanish French German Italian Russian Arabic Hindi Turkish Dutch Swedish Polish Greek Hebrew Thai Korean Danish "
    "Finnish Hungarian Czech Persian Urdu Bengali Latin Welsh Swahili Croatian",
    "Portuguese Norwegian Romanian Tamil Gaelic Serbian Mongolian Estonian",
    "Japanese Mandarin Vietnamese Ukrainian Icelandic Bulgarian Catalan Armenian",
)
_topic(
    "fear",
    "heights needles elevators thunder ghosts bridges tunnels crowds sharks bats wolves lightning fireworks basements "
    "earthquakes mirrors zombies wasps scorpions escalators dentists monsters vampires snakes balloons strangers",
    "spiders darkness tornadoes cemeteries rats germs cliffs crocodiles",
    "flying hospitals moths caves puppets storms pirates worms",
)
_topic(
    "allergy",
    "peanuts pollen strawberries shellfish wheat eggs latex dust cinnamon walnuts soy sesame feathers mustard perfume "
    "celery almonds nickel chocolate kiwi grass mold garlic penicillin corn pepper",
    "bananas cashews wool honey avocado onions aspirin fur",
    "tomatoes hazelnuts gluten mushrooms peaches pine ragweed mango",
)
_topic(
    "collection",
    "stamps coins postcards teapots buttons spoons thimbles seashells comics keychains badges marbles bottles dolls "
    "magnets swords lamps globes typewriters teddies bookmarks fossils masks lanterns medals hats",
    "clocks figurines autographs maps vases knives crystals kites",
    "watches posters records paintings cameras rocks umbrellas candles",
)
_topic(
    "music",
    "jazz rock blues country folk metal punk reggae soul funk disco techno gospel classical rap swing ska salsa samba "
    "flamenco ambient choral synthpop rockabilly ragtime ballroom",
    "opera grunge bluegrass trance polka indie baroque electronic",
    "pop tango dubstep acoustic celtic orchestral psychedelic lullaby",
)
_topic(
    "dream",
    "Peru Iceland Brazil Kenya Norway India Morocco Australia Vietnam Greece Cuba Scotland Nepal Egypt Chile Jamaica "
    "Sweden Turkey Ireland Mexico Thailand Russia Portugal Switzerland Madagascar Indonesia",
    "Canada Italy Argentina Finland Hungary Ethiopia Malaysia Croatia",
    "Japan Spain Tanzania Denmark Colombia Bolivia Austria Cambodia",
)
_topic(
    "school",
    "biology chemistry physics law economics philosophy medicine history geography mathematics sociology theology "
    "linguistics marketing statistics anthropology nursing archaeology finance accounting agriculture dentistry "
    "forestry zoology botany robotics",
    "psychology engineering geology pharmacology journalism neuroscience genetics logistics",
    "architecture literature politics ecology criminology meteorology aviation theater",
)
_topic(
    "color",
    "blue red purple orange turquoise pink gray brown violet crimson beige indigo silver teal magenta lavender "
    "scarlet gold maroon khaki ivory navy peach bronze lilac aqua",
    "green amber copper burgundy charcoal mint cyan emerald",
    "yellow black coral cream ruby olive fuchsia mauve",
)
_topic(
    "garden",
    "roses tulips carrots pumpkins sunflowers potatoes lettuce orchids daisies cucumbers cabbages beans lilies "
    "spinach melons herbs grapes peas radishes raspberries dahlias poppies ferns basil cherries zucchini",
    "daffodils beets apples violets leeks blueberries mangoes marigolds",
    "peppers irises plums turnips artichokes lemons begonias pears",
)
