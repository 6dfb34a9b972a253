"""What holds sentences together: function words, negations, bounds, questions, numerals, units."""

from __future__ import annotations

from shared.slots import word_list

STOP = """
a an the this that these those such
i me my mine myself we us our ours you your yours yourself he him his she her hers it its itself
they them their
theirs themselves someone somebody anyone anybody one ones something anything thing things stuff
am is are was were be been being do does did doing done have has had having will would shall
should can could may
might must ought going gonna wanna let lets
and or but nor if then else so because as while though although since than
of in on at to from by for with about into onto upon per via through during between among within
against toward towards
over under across along around off out up down ie
who whom whose which what when where why how whether
there here please kindly thanks thank hi hello hey dear ok just really actually basically simply
very quite too also
even still already ever yet some any much many lot lots kind e.g i.e etc
able possibly maybe perhaps way ways give tell explain know like want need would get got
make
question answer info regarding concerning following given
"""
"""Of no content of their own. The last lines hold words of asking, which come and go freely."""

SKIPPED = frozenset(
    word_list("""
        a an the this that these those my your our his her its their please kindly just
        really actually basically simply very quite too also even still already some any""")
)
"""Not even in the way between two words."""

PREPOSITIONS = frozenset(
    word_list("""
        of in on at to from by for with about into onto than against over before after since
        until via through during without""")
)

NEGATIONS = frozenset(
    word_list("""
        not no never none without nobody nothing nowhere neither nor cannot hardly lacking
        lack avoid avoids avoiding unable nay""")
)

CONTRACTIONS = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not",
    "dont": "do not", "doesnt": "does not", "didnt": "did not", "cant": "can not",
    "isnt": "is not", "arent": "are not", "wasnt": "was not", "werent": "were not",
    "wont": "will not", "couldnt": "could not", "shouldnt": "should not", "wouldnt": "would not",
    "hasnt": "has not", "havent": "have not", "hadnt": "had not", "aint": "is not",
    "ain't": "is not", "whats": "what is", "hows": "how is", "whos": "who is",
    "wheres": "where is", "thats": "that is", "im": "i am", "ive": "i have", "u": "you",
    "ur": "your", "pls": "please", "plz": "please", "til": "until", "thru": "through",
    "w/o": "without", "unable": "not able",
}  # fmt: skip

IRREGULAR = """
bought buy|sold sell|went go|gone go|came come|got get|gotten get|gave give|given give|took take
taken take|made make|found find|lost lose|won win|beaten beat|ate eat|eaten eat|drank drink
drunk drink|drove drive|driven drive|wrote write|written write|ran run|saw see|seen see|knew know
known know|thought think|taught teach|caught catch|brought bring|fought fight|sought seek
kept keep|slept sleep|felt feel|dealt deal|meant mean|met meet|read read|led lead|fed feed
held hold|told tell|said say|paid pay|laid lay|heard hear|stood stand|understood understand
sent send|spent spend|lent lend|built build|bent bend|became become|began begin|begun begin
broke break|broken break|chose choose|chosen choose|fell fall|fallen fall|flew fly|flown fly
forgot forget|forgotten forget|froze freeze|frozen frozen|grew grow|grown grow|hid hide
hidden hidden|rode ride|ridden ride|rose rise|risen rise|sang sing|sung sing|sank sink|sat sit
shook shake|shaken shake|shot shoot|spoke speak|spoken spoken|stole steal|stolen steal|swam swim
swore swear|threw throw|thrown throw|tore tear|torn tear|woke wake|wore wear|worn wear|drew draw
drawn draw|died die|dying die|lying lie|lied lie|tying tie|children child|men man|women woman
people people|teeth tooth|feet foot|mice mouse|geese goose|wives wife|lives live|knives knife
leaves leave|halves half|indices index|matrices matrix|analyses analysis|criteria criterion
phenomena phenomenon|data data|media media|news news|this this|his his|was was|has has|does does
is is|us us|series series|species species|bus bus|gas gas|plus plus|minus minus|always always
perhaps perhaps|thus thus|across across|its its
"""

PHRASES = """
sort_of=kind sorts_of=kind type_of=kind types_of=kind b_w=between w_o=without if_not=otherwise
do_you_think=please is_there_a_way_to=howto is_there_any_way_to=howto how_many=howmany
how_much=howmuch how_long=howlong how_far=howfar how_old=howold how_often=howoften how_big=howbig
how_tall=howtall how_high=howhigh how_fast=howfast how_large=howbig how_deep=howdeep
how_heavy=howheavy how_soon=when
how_come=why what_time=when what_date=when what_day=when what_year=when what_place=where
what_makes=why what_causes=why
what_is_the_reason=why what_are_the_reasons=why for_what_reason=why at_what_age=howold
at_what_temperature=what
the_reason_why=why reason_why=why reasons_why=why reasons_for=why what_caused=why what_made=why
what_is_the_best_way_to=howto what_are_the_best_ways_to=howto what_are_some_ways_to=howto
what_is_the_way_to=howto
what_is_the_easiest_way_to=howto what_is_a_good_way_to=howto what_are_the_steps_to=howto
best_way_to=howto tips_for=howto tips_on=howto ways_of=howto steps_for=howto
how_many_times=howoften how_frequently=howoften how_much_time=howlong how_regularly=howoften
ways_to=howto steps_to=howto way_to=howto how_to=howto how_do_i=howto how_can_i=howto
how_do_you=howto how_should_i=howto
how_can_you=howto how_can_we=howto how_do_we=howto how_could_i=howto how_would_i=howto
how_does_one=howto
what_number_of=howmany what_is_the_number_of=howmany number_of=howmany
what_is_the_distance=howfar distance_between=howfar distance_from=howfar
can_you_tell_me=please could_you_tell_me=please can_you=please could_you=please would_you=please
will_you=please
i_want_to_know=please i_would_like_to_know=please tell_me=please let_me_know=please
do_you_know=please give_me=please
thank_you=please thanks_in_advance=please as_well=please of_course=please
whether_or_not=whether or_not=whether not_only=only_also no_matter=regardless no_longer=nolonger
no_doubt=surely
no_problem=surely why_not=why_not
more_than=gt greater_than=gt larger_than=gt bigger_than=gt higher_than=gt longer_than=gt
older_than=gt exceeding=gt
less_than=lt fewer_than=lt smaller_than=lt lower_than=lt shorter_than=lt younger_than=lt
at_least=ge no_less_than=ge no_fewer_than=ge not_less_than=ge or_more=ge minimum_of=ge
at_most=le no_more_than=le not_more_than=le or_less=le or_fewer=le up_to=le maximum_of=le
but_not=except other_than=except apart_from=except aside_from=except except_for=except
with_the_exception_of=except
instead_of=instead rather_than=instead in_place_of=instead
sq_ft=sqft square_feet=sqft square_foot=sqft sq_feet=sqft square_meter=sqm square_meters=sqm
square_metres=sqm sq_m=sqm
square_mile=sqmile square_miles=sqmile square_kilometers=sqkm square_km=sqkm per_cent=percent
degrees_celsius=celsius degrees_fahrenheit=fahrenheit degree_celsius=celsius
degree_fahrenheit=fahrenheit
miles_per_hour=mph kilometers_per_hour=kmh km_h=kmh times_a=times
us_dollars=usd us_dollar=usd american_dollars=usd canadian_dollars=cad canadian_dollar=cad
australian_dollars=aud
australian_dollar=aud british_pounds=gbp pounds_sterling=gbp pound_sterling=gbp
hong_kong_dollars=hkd swiss_francs=chf
swiss_franc=chf indian_rupees=inr new_zealand_dollars=nzd singapore_dollars=sgd
half_a_dozen=halfdozen couple_of=couple
this_week=rel_this_week last_week=rel_last_week next_week=rel_next_week this_month=rel_this_month
last_month=rel_last_month
next_month=rel_next_month this_year=rel_this_year last_year=rel_last_year next_year=rel_next_year
last_quarter=rel_last_quarter next_quarter=rel_next_quarter previous_year=rel_last_year
previous_month=rel_last_month
previous_week=rel_last_week coming_week=rel_next_week the_day_after_tomorrow=rel_overmorrow
the_day_before_yesterday=rel_day_before_yesterday last_night=rel_last_night
part_time=part_time full_time=full_time one_way=one_way round_trip=round_trip two_way=two_way
long_term=long_term
short_term=short_term upper_case=uppercase lower_case=lowercase
"""

STRICT = """
only except excluding unless instead besides nolonger
maximum minimum ascending descending worst least less fewer lowest worse
part_time full_time one_way round_trip offline free illegal pregnant frozen raw secondhand
frontend backend alphabetically chronologically reversed descending
"""
"""Words that bound what is asked for: on one side alone they are a difference."""

UNITS = """
km kilometer kilometers kilometre kilometres kms
mile miles mi
meter meters metre metres m
cm centimeter centimeters centimetre centimetres
mm millimeter millimeters millimetre millimetres
foot feet ft
inch inches
yard yards yd
lightyear lightyears
kg kilogram kilograms kilogramme kilos kilo kgs
gram grams gm g grammes
mg milligram milligrams
mcg microgram micrograms
lb pound pounds lbs
ounce ounces oz
tonne ton tons tonnes
liter liters litre litres l
ml milliliter milliliters millilitre millilitres
gallon gallons gal
pint pints
quart quarts
cup cups
tablespoon tablespoons tbsp
teaspoon teaspoons tsp
sqft sf
sqm
sqmile
sqkm
acre acres
hectare hectares
celsius centigrade
fahrenheit
kelvin
degree degrees
second seconds sec secs
minute minutes mins
hour hours hr hrs
day days
week weeks
month months mos
year years yr yrs
decade decades
century centuries
kb kilobyte kilobytes
mb megabyte megabytes
gb gigabyte gigabytes gigs
tb terabyte terabytes
mbps
gbps
hz hertz
khz
mhz megahertz
ghz gigahertz
watt watts
kw kilowatt kilowatts
kwh
volt volts
amp amps
mph
kmh kph
bed bedroom bedrooms br bd bdrm beds
bath bathroom bathrooms ba baths
percent pct
calorie calories kcal
mile_per_gallon mpg
time times
word words
page pages
sentence sentences
line lines
character characters
step steps
bullet_point
usd dollar dollars bucks
eur euro euros
gbp quid
jpy yen
cny yuan renminbi rmb
inr rupee rupees rs
cad
aud
nzd
hkd
sgd
chf franc francs
mxn peso pesos
brl
krw won_currency
rub ruble rubles rouble roubles
btc
eth
"""
"""One unit a line, its spellings behind it."""

CURRENCIES = frozenset(
    word_list("""
        usd eur gbp jpy cny inr cad aud nzd hkd sgd chf mxn brl krw rub btc eth yen""")
)

BARE_UNITS = """
km mile meter cm mm inch yard lightyear kg gram mg mcg ounce tonne liter ml gallon pint quart cup
tablespoon teaspoon
sqft sqm sqmile sqkm acre hectare celsius fahrenheit kelvin kb mb gb tb mbps gbps hz khz mhz ghz
watt kw kwh volt mph kmh foot lb
"""
PERIODS = "second minute hour day week month year decade century"

NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
MONTHS = "january february march april may june july august september october november december"
MONTH_SHORT = {
    "jan": 1, "feb": 2, "apr": 4, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "sept": 9, "oct": 10,
    "nov": 11, "dec": 12,
}  # fmt: skip
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
WEEKDAY_SHORT = {"tue": 2, "tues": 2, "thu": 4, "thur": 4, "thurs": 4, "fri": 5}
RELATIVE = "today yesterday tomorrow tonight"
ADVERBS_OF_PERIOD = {
    "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annual": "year",
    "annually": "year", "hourly": "hour",
}  # fmt: skip

SUFFIXES = frozenset(
    word_list("""
        street avenue boulevard road lane court highway parkway square drive place terrace
        trail circle way plaza alley crescent cove loop pike st ave av blvd rd ln ct hwy
        pkwy sq dr pl ter trl cir aly cres""")
)
SUFFIX_SHORT = {
    "st": "street", "ave": "avenue", "av": "avenue", "blvd": "boulevard", "rd": "road",
    "ln": "lane", "ct": "court",
    "hwy": "highway", "pkwy": "parkway", "sq": "square", "dr": "drive", "pl": "place",
    "ter": "terrace",
    "trl": "trail", "cir": "circle", "aly": "alley", "cres": "crescent",
}  # fmt: skip
DIRECTIONS = {
    "n": "north", "s": "south", "e": "east", "w": "west", "ne": "northeast", "nw": "northwest",
    "se": "southeast", "sw": "southwest",
}  # fmt: skip

AMBIGUOUS = frozenset(
    word_list("""
        react rust dart oracle bing opera spring express target visa gap bush angular ruby
        reading word""")
)
"""Words that are names only with a capital."""

PAST_FORMS = frozenset(
    word_list("""
        went came got gave took became began broke wrote ran saw won lost bought sold""")
)
PAST = frozenset(
    word_list("""
        was were did had""")
)
FUTURE = frozenset(
    word_list("""
        will shall gonna""")
)
MODALS = frozenset(
    word_list("""
        should could would might must""")
)
