"""Things of which a text names one or another, by class: facts, listed by ourselves.

As in `words_places`. A class whose name ends in `!` is strict: a member on one side alone is
already a difference. Of the others both sides must have one of their own.
"""

from __future__ import annotations

CLASSES = """
colour!: red blue green yellow orange purple violet pink brown black white gray beige turquoise
  magenta cyan crimson maroon navy teal
metal: gold silver copper iron steel aluminum zinc tin nickel platinum titanium brass bronze
  lithium cobalt uranium mercury tungsten
element: hydrogen helium oxygen nitrogen carbon sodium potassium calcium magnesium sulfur/sulphur
  phosphorus chlorine fluorine iodine neon argon silicon ammonia ethanol methanol methane propane
  butane ethane benzene acetone glucose fructose sucrose
sport: soccer basketball baseball tennis golf cricket rugby hockey volleyball badminton
  swimming/swim cycling running/run/jogging/jog boxing wrestling skiing snowboarding surfing
  gymnastics yoga pilates chess judo karate rowing marathon half_marathon triathlon
animal: dog/puppy cat/kitten horse cow pig sheep goat chicken duck goose rabbit mouse rat hamster
  bird parrot fish shark whale dolphin snake lizard turtle frog spider bee ant butterfly mosquito
  lion tiger elephant bear wolf fox deer monkey gorilla camel crocodile penguin eagle owl
body: head hair face eye ear nose mouth tooth/teeth tongue neck shoulder arm elbow wrist hand
  finger thumb chest breast stomach/belly/abdomen hip leg thigh knee ankle toe skin heart lung
  liver kidney brain bone muscle spine throat
family: father mother brother sister son daughter uncle aunt cousin nephew niece
  grandfather/grandpa grandmother/grandma husband wife boyfriend girlfriend parent stepfather
  stepmother dad mom
person: landlord tenant boss employee lawyer doctor nurse dentist teacher student customer
  colleague/coworker neighbor accountant engineer contractor recruiter professor stranger friend
  roommate judge pilot plumber electrician patient
season!: winter summer autumn monsoon
daypart: morning noon/midday afternoon evening night midnight
fruit: banana grape strawberry blueberry raspberry cherry peach pear plum mango pineapple lemon
  lime avocado watermelon melon kiwi grapefruit coconut apricot fig
vegetable: potato tomato onion garlic carrot broccoli cabbage spinach lettuce cucumber celery pea
  corn mushroom zucchini eggplant kale cauliflower pumpkin beet asparagus leek
food: chicken duck turkey bread rice pasta noodle pizza burger sandwich soup salad steak beef pork
  lamb bacon ham sausage salmon tuna shrimp egg cheese butter margarine milk yogurt cream sugar
  honey salt pepper flour oil olive_oil coconut_oil vinegar chocolate cake cookie brownie muffin
  pancake waffle pie candy ice_cream gluten tofu lentil bean nut peanut almond walnut cashew
  cinnamon ginger basil oregano thyme
drink: water coffee tea juice beer wine whiskey vodka rum gin soda alcohol champagne tequila
  smoothie
cooking: bake fry roast grill boil steam microwave saute poach simmer barbecue deep_fry
medicine!: ibuprofen/advil paracetamol/acetaminophen/tylenol aspirin naproxen metformin insulin
  glipizide amoxicillin penicillin azithromycin antibiotic atorvastatin simvastatin statin
  lisinopril losartan warfarin heparin prednisone omeprazole xanax prozac zoloft sertraline
  fluoxetine morphine codeine oxycodone viagra adderall ritalin melatonin
disease!: cancer diabetes asthma flu/influenza covid/covid_19/coronavirus malaria tuberculosis
  hiv/aids hepatitis pneumonia bronchitis measles mumps chickenpox shingles arthritis osteoporosis
  anemia leukemia stroke epilepsy migraine depression anxiety adhd autism schizophrenia dementia
  alzheimer/alzheimers parkinson/parkinsons hypertension hypotension eczema psoriasis acne dengue
  cholera ebola herpes gout appendicitis
vitamin: vitamin protein fiber fat carbohydrate/carb/carbs cholesterol
planetary: star planet galaxy comet asteroid
vehicle: car bus train/rail plane/flight ship boat ferry bicycle/bike motorcycle/motorbike truck
  van taxi subway tram helicopter rocket scooter
instrument: piano guitar violin cello drum/drums flute trumpet saxophone clarinet harp ukulele banjo
dwelling: house apartment condo townhouse duplex villa cottage
shape: circle square triangle rectangle ellipse sphere cube cylinder cone pyramid hexagon pentagon
  trapezoid
material: wood plastic glass paper leather cotton wool silk concrete ceramic rubber
religion: christianity/christian islam/muslim judaism/jewish/jew hinduism/hindu buddhism/buddhist
  sikhism/sikh catholic protestant
subject: physics chemistry biology mathematics/math geography economics philosophy psychology
  sociology linguistics astronomy geology law accounting
investment: stock/share bond gold real_estate crypto/cryptocurrency bitcoin ethereum mutual_fund
  etf/etfs option reit
finance: revenue/sales/turnover profit/net_income/net_profit/earnings ebitda gross_margin
  gross_profit operating_margin profit_margin net_margin operating_income operating_profit
  cash_flow/free_cash_flow market_cap/market_capitalization stock_price/share_price dividend debt
  equity eps/earnings_per_share headcount assets liabilities expense/expenses/spending budget
  valuation
rate: interest_rate exchange_rate inflation_rate tax_rate unemployment_rate growth_rate birth_rate
  death_rate heart_rate crime_rate
cost: property_tax income_tax sales_tax closing_cost/closing_costs rent mortgage_payment
  insurance_premium hoa_fee utility_bill price fee deposit commission salary bonus pension tip
geography: population area density gdp capital currency climate elevation/altitude coastline
  timezone/time_zone flag anthem president prime_minister vice_president king mayor governor
  life_expectancy literacy
physical: mass weight volume density boiling_point freezing_point melting_point temperature
  pressure speed/velocity acceleration force energy power voltage resistance frequency wavelength
  radius diameter circumference perimeter area length width height depth distance surface_area
effect: side_effect benefit risk symptom treatment cure diagnosis dosage prognosis complication
meal: breakfast lunch dinner brunch supper snack dessert
weather: rain snow hail fog wind storm sunshine frost hurricane tornado earthquake flood drought
nutrient: caffeine sugar protein fat fiber sodium salt carbohydrate cholesterol calorie vitamin
  iron calcium potassium
poem: haiku limerick sonnet ballad rap riddle joke slogan
garden: plant harvest water prune fertilize sow transplant mow
building_kind: airport station hotel hospital school library museum church stadium restaurant bank
  gym pharmacy supermarket
branching: merge rebase cherry_pick revert stash squash
arithmetic: add subtract multiply divide
renovation: paint insulate tile wallpaper demolish rewire remodel
feature: bluetooth wifi hotspot autocorrect dark_mode airplane_mode notification
oop: inheritance polymorphism encapsulation abstraction recursion closure decorator generator
  iterator interface
sign_of_text: tab comma space semicolon hyphen colon period_sign newline quote
income_kind: dividend gift inheritance bonus interest_income wage royalty
writing: theme plot character setting author moral genre style
document: email letter essay poem haiku song story report blog_post article speech memo contract
  invoice receipt resume cover_letter tweet proposal press_release
tone!: formal informal casual friendly humorous/funny sarcastic polite concise persuasive
length!: briefly/brief detailed/in_detail concise thorough shortly
format!: json csv yaml/yml xml markdown toml tsv latex
layout: table bullet_point paragraph sentence chart diagram essay outline flowchart
audience: beginner expert child adult teenager/teen professional layperson/layman executive novice
  professor kindergartner biologist lawyer senior
proglang!: python java javascript typescript ruby perl php rust golang kotlin scala haskell
  clojure elixir erlang lua fortran cobol pascal matlab groovy bash powershell csharp cpp
  objective_c dart sql html css assembly vba visual_basic
framework!: react angular vue svelte django flask fastapi rails laravel spring_boot express_js
  nextjs nodejs jquery bootstrap tailwind tensorflow pytorch keras scikit_learn pandas numpy
  pytest nosetests unittest junit jest selenium preact
database!: mysql postgresql mongodb sqlite mariadb cassandra redis dynamodb elasticsearch neo4j
  snowflake bigquery couchdb memcached
os!: windows linux macos ubuntu debian fedora centos android ios chromeos
tool: git svn docker podman kubernetes terraform ansible jenkins kafka rabbitmq pulsar nginx
  apache npm yarn webpack vim emacs vscode grep egrep sed awk curl wget
cloud!: aws azure gcp heroku cloudflare digitalocean
browser!: chrome firefox safari opera internet_explorer
fileformat: pdf docx xlsx pptx png jpg/jpeg gif svg mp3 mp4 wav avi zip tar gzip parquet txt
datatype: list tuple set dict array string integer float boolean queue stack heap tree graph
  linked_list hash_map dataframe vector matrix tensor
task: return select sort reverse list_all filter group delete insert update merge split shuffle
  validate parse concatenate deduplicate search flatten rotate
work: explain write fix debug refactor translate summarize compare optimize proofread rewrite
  paraphrase review define
aggregate: sum average median mode maximum minimum variance standard_deviation total
company!: google/alphabet microsoft amazon facebook netflix tesla nvidia intel amd ibm oracle
  salesforce adobe samsung sony lg huawei xiaomi nokia toyota honda ford bmw mercedes
  volkswagen/vw audi nissan hyundai ferrari porsche boeing airbus pfizer moderna astrazeneca
  novartis bayer walmart costco ikea nike adidas starbucks mcdonalds coca_cola/coke pepsi disney
  uber lyft airbnb spotify twitter linkedin instagram whatsapp snapchat tiktok youtube pinterest
  reddit quora paypal mastercard amex/american_express goldman_sachs jpmorgan morgan_stanley
  citibank wells_fargo barclays hsbc flipkart infosys tcs wipro accenture deloitte kpmg openai
  anthropic alibaba tencent ebay yahoo bing verizon comcast dell hp/hewlett_packard lenovo cisco
  qualcomm
money_thing: credit_card debit_card bank_transfer
sick_leave: sick_day vacation_day
mathfn: derivative integral gradient determinant inverse eigenvalue root factorial logarithm
sea: sea sky river lake mountain ocean desert volcano island
code_case: uppercase lowercase camelcase snakecase
ordinal_level: elementary_school middle_school high_school
war!: world_war_1 world_war_2 cold_war civil_war vietnam_war korean_war
crime: libel slander defamation fraud theft murder assault arson perjury burglary robbery
  manslaughter negligence bribery kidnapping battery rape
device: laptop tablet smartphone desktop phone smartwatch monitor television printer camera router
  headphone
number_kind: prime even_number odd_number composite
degree: best worst
vital: blood_pressure blood_sugar blood_type body_fat heart_rate cholesterol
stage: final semifinal quarterfinal qualifier playoff
scored: goal assist point rebound touchdown yellow_card red_card title medal trophy
contact: phone_number zip_code email_address street_address social_security_number date_of_birth
  credit_card_number postal_code ip_address
letter_kind: resignation recommendation complaint apology invitation
booking: cancel move reschedule confirm book postpone schedule
crud: update delete list return insert
account_thing: password username account subscription order profile
"""
