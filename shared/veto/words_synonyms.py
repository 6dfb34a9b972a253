"""Spellings and words that ask for the same, a modest list of our own making.

One set a line; the first is what the others are read as. Phrases have `_` for spaces.
"""

from __future__ import annotations

SETS = """
buy purchase acquire
big large bigger biggest larger largest huge
small little tiny
fast quick quickly rapidly fastest quicker swiftly speedy rapid
child kid children kids kiddo
woman female women lady
man male men
begin start commence
end finish conclude
stop cease
show display
affect influence impact
use utilize utilise using employ
get obtain receive
help assist aid
movie film
picture photo image photograph pic
car automobile
doctor physician dr
job work
company firm business
house home
apartment flat
bathroom bath ba baths bathrooms
bedroom bed br bd bdrm beds bedrooms
method function
error exception
folder directory
ram memory
phone telephone smartphone cellphone cell_phone mobile_phone
tv television
laptop notebook
website site web_site webpage web_page
internet web
email e_mail mail
password passcode
delete erase
remove get_rid_of
fix repair resolve solve
difficult hard tough
easy simple
important significant crucial
common typical
correct accurate
wrong incorrect
happy glad
sad unhappy
smart intelligent clever
cheap inexpensive affordable
expensive costly pricey
rich wealthy
begin_with start_with
increase rise go_up going_up went_up goes_up
decrease fall go_down going_down went_down goes_down reduce
enable activate turn_on turning_on turned_on switch_on
disable deactivate turn_off turning_off turned_off switch_off
pair couple
answer reply respond response
ask inquire
tell inform
choose select pick
try attempt
need require
want wish
keep retain
improve enhance better_at
build construct
create make generate produce write compose draft
explain describe clarify
summarize summarise summary sum_up
analyze analyse analysis
calculate compute work_out
convert change_into turn_into transform conversion
compare comparison contrast comparing
translate translation
list enumerate
find locate
discuss debate
similar alike
difference differ different distinction
reason cause why
result outcome consequence
way method approach means
problem issue trouble
advantage pro benefit upside pros
disadvantage con drawback downside cons
side_effect adverse_effect
maximum max
minimum min
average mean
number amount count quantity
price cost
salary wage
tax taxes
trip journey
vacation holiday holidays
plane airplane aeroplane
subway metro underground
autumn fall_season
gas petrol gasoline
soccer football
lift elevator
sick ill
medicine drug medication
weight_loss lose_weight losing_weight
exercise workout exercising
university college
school schooling
teacher instructor
student pupil
friend buddy
baby infant
dad father
mom mother mum
people person persons folks
user users
customer client
boss manager supervisor
employee worker staff
lawyer attorney
police cop
start_date begin_date
currently nowadays
often frequently
almost nearly
about approximately approx roughly around
best better top
colour color
flavour flavor
favourite favorite
behaviour behavior
neighbour neighbor
centre center
theatre theater

fibre fiber
grey gray
licence license
defence defense
programme program
jewellery jewelry
organise organize
recognise recognize
realise realize
apologise apologize
optimise optimize
minimise minimize
maximise maximize
categorise categorize
visualise visualize
criticise criticize
practise practice
travelling traveling
cancelled canceled
enrol enroll
aluminium aluminum
cheque check
tyre tire
maths math mathematics
advert ad advertisement
app application
info information
dict dictionary dicts dictionaries
param parameter argument
config configuration
db database
repo repository
env environment
regex regexp regular_expression
auth authentication
admin administrator
docs documentation
vs versus
except besides excluding
ai artificial_intelligence
ml machine_learning
nda non_disclosure_agreement
ceo chief_executive_officer chief_executive
gdp gross_domestic_product
hr human_resources
usa united_states us_country america u_s u_s_a united_states_of_america
uk united_kingdom great_britain britain u_k
eu european_union
uae united_arab_emirates
ussr soviet_union
nyc new_york_city new_york

world_war_2 world_war_ii second_world_war ww2 wwii world_war_two
world_war_1 world_war_i first_world_war ww1 wwi world_war_one
javascript js
typescript ts
golang go_language
csharp c#
cpp c++
postgresql postgres
mongodb mongo
kubernetes k8s
macos mac_os os_x osx
bullet_point bullet bullets bullet_points

prior_to before
previous prior
until till
although though
enough sufficient
whole entire
every each

earn make_money
sleep sleeping
eat eating
safe safely
strange weird
terrible awful horrible
great excellent awesome
beautiful pretty gorgeous
begin_to start_to
mistake blunder
gift present
shop store
street st
avenue ave
boulevard blvd
road rd
lane ln
court ct
highway hwy
parkway pkwy
square sq
apartment_number apt
building bldg
suite ste
property listing
real_estate realty
cv resume curriculum_vitae
login log_in sign_in logging_in log_into sign_into logging_into signing_in logged_in logged_into
logout log_out sign_out
signup sign_up
setup set_up
backup back_up
okay ok alright
dose dosage
illness sickness

grow_up raise_up
vote voting
"""
