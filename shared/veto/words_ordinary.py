"""Ordinary English words: whatever is not among them (nor in another list) may be a name.

Base forms, a list of our own making. It need not be complete: a word that is missing is taken for a
name, and then two texts of which only one has it do not match.
"""

from __future__ import annotations

WORDS = """
ability able abortion about above abroad absence absolute abuse academic academy accept access
accident accommodate accomplish
according account accountant accurate accuse ache achieve acid acknowledge acquire across act
action active activity actor actual actually ad adapt
add addict addition address adjust administration admission admit adopt adult advance advantage
adventure advertise advice advise affair affect afford
afraid afternoon again age agency agenda agent aggressive ago agree agreement agriculture ahead
aid aim air aircraft airline airport alarm album alcohol
alien align alive allergy allow almost alone along already alter alternate alternative always
amaze ambition amend among amount amuse analog analyst analytics analysis analytical ancestor
ancient anger angle angry animal anniversary announce annoy annual another answer anxious any
anybody anymore anyone anything anytime anyway anywhere apart api app apparent
appeal appear appendix apple appliance apply appoint appointment appreciate approach appropriate
approve architect architecture archive area argue argument arise arm army around arrange array
arrest arrive
art article artificial artist ask asleep aspect assault assemble assess asset assign assignment
assist associate assume assure astronaut athlete atmosphere atom attach attack attempt attend
attendance attention attitude attorney attract attractive attribute auction audience audio audit
aunt author authority authorize auto automate automatic autumn available average avoid award aware
away awesome awful
baby back background backpack bad badge bag bake balance balcony ball ballet ballot ban band bank
bankrupt banner bar bare bargain barrel barrier base baseball basic basis basket basketball batch
bath bathroom
battery battle beach bean bear beard beast beat beautiful beauty become bed bedroom beer before
begin behave behavior behind being belief believe bell belong below belt bench benchmark bend
benefit beside best bet
better between beyond bias bible bicycle bid big bike bill billion bin bind biography biology bird
birth birthday bit bite bitter black blade blame blank blanket blast bleed blend bless blind block
blog blood blow blue board
boat body boil bold bomb bond bone bonus book boost boot border bore borrow boss both bother
bottle bottom bounce bound boundary bow bowl box boy boyfriend brain brake branch brand brave
bread break breakfast breast breath breathe breed breeze
brick bride bridge brief bright bring broad broadcast broken brother brown browse browser brush
bucket budget bug build builder building bullet bully burden burn burst bury bus bush business
busy but butter button buy buyer by bypass
cabin cabinet cable cache cage cake calculate calculator calendar call calm calorie camera camp
campaign campus can cancel cancer candidate candle candy cap capable capacity capital captain
capture car carbon card care career careful cargo carpet
carrier carry cart case cash cast castle casual cat catch category cause cave ceiling celebrate
celebrity cell cent center central century ceremony certain certificate certify chain chair
chairman challenge champion championship chance change channel chapter
character characteristic charge charger charity charm chart chase chat cheap cheat check cheese
chef chemical chemistry chest chicken chief child childhood chip choice choose church cigarette
cinema circle circuit circumstance citizen citizenship city civil
civilization claim class classic classical classify classmate classroom clause clean clear clerk
clever click client climate climb clinic clock clone close cloth clothes clothing cloud club clue
cluster coach coal coast coat code coffee coin cold collaborate collapse
colleague collect collection college collide colony color column combine come comedy comfort
comfortable command comment commerce commercial commission commit committee common communicate
communication community company compare compatible compensate compete competition
competitive competitor compile complain complaint complete complex complicated component compose
compound comprehend compress comprise compute computer concentrate concept concern concert
conclude conclusion condition conduct conference confidence confident configure
confirm conflict confuse confusion connect connection conscious consciousness consent consequence
conserve consider consist consistent constant constitution construct construction consult
consultant consume consumer contact contain container contaminate content contest context
continent
continue continuous contract contractor contrast contribute control controversial conversation
convert convince cook cookie cool cooperate copy copyright core corn corner corporate corporation
correct correlate correspond corrupt corruption cost costume cotton couch council
count counter country county couple courage course court cousin cover coverage cow crack craft
crash crazy cream create creative creator creature credit crew crime criminal crisis criteria
critic critical criticism crop cross crowd crucial cruel cruise crush cry crystal cultural
culture cup cure curious currency current curriculum curve custom customer cut cute cycle cylinder
dad daily damage damp dance danger dangerous dark data database dataset date daughter day dead
deadline deal dear death debate debt decade decay decide decision deck declare decline
decorate decrease dedicate deep deer default defeat defend defense define definition degree delay
delete deliberate delicate delicious deliver delivery demand democracy democratic demonstrate
density dentist deny department depend dependency depict deploy deposit depress
depression depth derive descend describe description desert deserve design desire desk desktop
despite destination destroy detail detect detective determine develop developer development device
devote dialog diamond diary dictionary die diet differ difference different
difficult difficulty dig digest digit digital dimension dinner diploma direct direction director
dirt dirty disability disagree disappear disappoint disaster discipline discount discover
discovery discrete discrimination discuss discussion disease dish disk display dispose dispute
distance distinct distinguish distribute distribution district disturb dive diverse divide divorce
doctor doctorate document dog dollar dolphin domain domestic dominate donate donation door dose
double doubt download downtown draft drag dragon drain drama dramatic draw drawback drawer dream
dress
drink drive driver drop drug drum dry dual duck due dump duplicate duration dust duty dynamic each
eager ear early earn earth earthquake ease easily east easy eat echo ecology economic economics
economist economy edge edit edition editor educate education effect effective efficient effort
egg ego eight either elect election electric electrical electricity electron electronic elegant
element elementary elephant elevator eligible eliminate elite else elsewhere email embarrass embed
embrace emerge emergency emit emotion emotional emperor emphasis empire employ employee
employer employment empty enable encounter encourage end endanger enemy energy enforce engage
engine engineer engineering enhance enjoy enormous enough enroll ensure enter enterprise entertain
entertainment enthusiasm entire entitle entity entrance entrepreneur entry envelope environment
envy epic epidemic episode equal equation equipment equity equivalent era error escape especially
essay essential establish estate estimate eternal ethic ethical ethnic evaluate even evening event
eventually ever every everybody everyday everyone everything everywhere evidence evil
evolution evolve exact exactly exam examine example exceed excellent except exception exchange
excite exclusive excuse execute executive exercise exhaust exhibit exhibition exist existence exit
expand expect expectation expense expensive experience experiment expert expertise expire explain
explanation
explicit explode explore explosion expose express expression extend extension extent external
extra extract extraordinary extreme eye eyebrow fabric face facility fact factor factory faculty
fade fail failure fair fairly faith fake fall false fame familiar family famous fan fancy
fantastic fantasy far farm
farmer fashion fast fat fatal fate father fault favor favorite fear feature federal fee feed
feedback feel feeling female fence festival fever few fiber fiction field fight figure file fill
film filter final finally finance financial find finding fine finger finish fire firm first fish
fit fitness fix flag flame flash
flat flavor flee fleet flesh flexible flight flip float flood floor flour flow flower fluid fly
focus fog fold folk follow food fool foot football for force forecast forehead foreign foreigner
forest forever forget forgive fork form formal format formation former formula fortune forum
forward foundation founder fraction frame
framework fraud free freedom freelance freeze frequency frequent fresh freshman fridge friend
friendly friendship front frozen fruit frustrate fuel full fun function functional fund
fundamental funding funeral funny furniture further future gain galaxy gallery gamble game gang
gap garage garbage garden gas gate gather gay gender gene
general generate generation generic generous genetic genius genre gentle gentleman genuine
geography germ gesture get ghost giant gift girl girlfriend give glad glass global glory glove
glue go goal god gold good goods gossip govern government governor grab grade gradual graduate
graduation grain grammar grand grandfather grandmother grant graph graphic grass grateful
grave gravity great greed green greet grocery ground group grow growth guarantee guard guess guest
guide guideline guilt guilty guitar gun guy gym habit hack hacker hair half hall hand handle
handsome hang happen happy harass hard hardly hardware harm harmful harmony harvest hat hate have
head headache headline headphone headquarters heal health healthy hear heart heat heaven heavy
height helicopter hell hello helmet help helpful hero hesitate hide hierarchy high highlight
highway hill hint hire historian historic historical history hit hobby hold hole holiday holy home
homeless homework honest honey honor hook hope horizon horror horse hospital host hostel hot hotel
hour house household housing how however hug huge human humanity humor hundred hungry hunt
hurricane hurry hurt husband
hybrid hygiene hypothesis ice icon idea ideal identical identify identity ideology idiot ignore
ill illegal illness illusion illustrate image imagination imagine immediate immediately immigrant
immigration immune impact implement implementation implication imply import important importance
impossible impress impression improve improvement impulse inch incident include income incorporate
increase incredible indeed independence independent index indicate indicator individual industrial
industry infect infection infer infinite inflation influence inform information infrastructure
ingredient inhabit inherit initial initiate initiative inject injure injury inner innocent
innovation innovative input inquiry insect insert inside insight inspect inspire install
installation instance instant instead instinct
institute institution instruct instruction instrument insult insurance insure integrate
integration integrity intellectual intelligence intelligent intend intense intent intention
interact interaction interest interesting interface interfere interior internal international
internet interpret interpretation interrupt interval intervention interview intimate introduce
introduction introvert invade invent invention inventor invest
investigate investigation investment investor invite invitation invoice involve iron irrigate
island isolate issue item jacket jail jam jealous jealousy jeans jet jewelry job join joint joke
journal journalist journey joy judge judgment juice jump junior jury just justice justify keep key
keyboard kick kid kill kind king kingdom kiss kit kitchen knee knife knock know knowledge label
labor laboratory lack ladder lady
lake lamp land landlord landscape language laptop large last late later latest latter laugh launch
laundry law lawn lawsuit lawyer lay layer layout lazy lead leader leadership leaf league leak lean
leap learn learner lease leather leave lecture left leg legacy legal legend legislation leisure
lend length lens less lesson let letter level liability liable liberal liberty library license lid
lie life lifestyle lifetime lift light
like likely likelihood limit limitation line link lip liquid list listen literally literary
literature litigation little live lively load loan local locate location lock logic logical logo
lonely long look loop loose lord lose loss lost lot loud love lovely lover low loyal luck lucky
luggage lunch lung luxury machine mad magazine magic magnet magnetic mail main mainly mainstream
maintain maintenance major majority make maker makeup male
mall man manage management manager manipulate manner manual manufacture manufacturer many map
margin marine mark market marketing marriage marry mask mass massage massive master match mate
material mathematics matrix matter mature maximize maximum maybe mayor meal mean meaning
meaningful means measure measurement meat mechanic mechanical mechanism medal media median medical
medication medicine medieval meditate meditation medium
meet meeting member membership membrane memorable memory mental mentality mention mentor menu
merchant mere merge merit mess message metal metaphor method metric middle midnight migrate
military milk mill million mind mine mineral minimize minimum minister minor minority minute
miracle mirror miserable miss missile mission mistake mix mixture mobile mode model modern modest
modify modification module molecule moment momentum
monetary money monitor monkey monster month mood moon moral more moreover morning mortgage most
mostly mother motion motivate motivation motor mount mountain mouse mouth move movement movie much
multiple multiply murder muscle museum music musical musician must mutual mystery myth naked name
narrative narrow nation national native natural nature navigate navy near nearby neat necessary
necessity neck need negative neglect negotiate
negotiation neighbor neighborhood nerve nervous nest net network neural neutral never nevertheless
new news newspaper next nice night nobody node noise none normal normalize nose notable note
notebook nothing notice notification notify notion novel now nowhere nuclear nude number numerous
nurse nutrition obesity object objective obligation observation observe obstacle obtain obvious
occasion occupation occupy occur ocean odd offend offer office officer
official often oil old ongoing onion online only open opera operate operation operator opinion
opponent opportunity oppose option oral orange orbit order ordinary organ organic organism
organization organize orient origin original other otherwise outcome outfit outlet outline output
outside outstanding oven overcome overall overnight own owner ownership oxygen pace pack package
page pain painful paint painter painting pair palace
pale panel panic pants paper paradox paragraph parallel paralyze parameter parcel pardon parent
park parking parliament part participant participate particle particular partner partnership party
pass passage passenger passion passive passport password past paste path patient pattern pause pay
payment peace peak peer pen penalty pencil pending pension people per perceive percent percentage
perception perfect perform performance perhaps
period permanent permission permit persist person personal personality perspective persuade pet
phase phenomenon philosopher philosophical philosophy phone photo photographer photography phrase
physical physician physicist physics pick pickup picture pie piece pill pilot pin pipe pipeline
pitch place placement plain plan plane planet plant plastic plate platform play player playlist
pleasant please pleasure plot plug plus pocket poem poet poetry
point poison police policy polite political politician politics poll pollution pool poor pop
popular popularity population porn port portfolio portion portrait pose position positive possess
possession possibility possible possibly post poster pot potential pound pour poverty powder power
powerful practical practice pray prayer preach precise predict prediction prefer preference
pregnancy pregnant prejudice premium preparation prepare prescribe
presence present presentation preserve presidency president presidential press pressure pretend
pretty prevent prevention previous price pride priest primary prime prince princess principal
principle print printer prior priority prison prisoner privacy private privilege prize probability
probable probably problem procedure proceed process processor produce producer product production
productive productivity profession professional professor
profile profit program programmer programming progress prohibit project promise promote promotion
prompt pronounce pronunciation proof proper properly property proportion propose proposal prosper
protect protection protein protest protocol proud prove provide provider province psychological
psychologist psychology public publication publish publisher pull pump punch punish purchase pure
purpose purse pursue push put puzzle qualification qualify
quality quantity quantum quarter queen query question queue quick quickly quiet quit quite quiz
quote race racial racism racist radar radiation radio rail railway rain raise random range rank
ranking rape rapid rare rarely rat rate rather ratio rational raw reach react reaction read reader
reading ready real realistic reality realize really reason reasonable rebel recall receipt receive
recent recently recipe recipient recognition recognize
recommend recommendation record recorder recover recovery recruit recruiter recruitment recycle
red redirect reduce reduction refer reference reflect reflection reform refrigerator refuge
refugee refund refuse regard region regional register registration regret regular regulate
regulation reinforce reject relate relation relationship relative relax release relevant reliable
relief religion religious reload rely remain remark remember remind remote
remove render renew renowned rent rental repair repeat repetitive replace replacement reply report
reporter repository represent representation representative reproduce republic reputation request
require requirement rescue research researcher reservation reserve reset residence resident
residential resign resist resistance resolution resolve resort resource respect respond response
responsibility responsible rest restart restaurant restore restrict restriction
result resume retail retain retire retirement retrieve return reveal revenge reverse review revise
revolution reward rhythm rice rich rid ride rifle right ring rise risk ritual rival river road
robot robotics rock rocket role roll romance romantic roof room roommate root rope rough round
route router routine row royal rub rubber rude ruin rule ruler rumor run runner rural rush
sacrifice sad safe safety sail salary sale salt same sample sanction sand sandwich satellite
satisfaction
satisfy sauce save say scale scan scandal scar scare scared scenario scene schedule scheme scholar
scholarship school science scientific scientist scope score scramble scratch scream screen
screenshot screw script sea seal search season seat second secret secretary section sector secure
security see seed seek seem segment seize select selection self sell semester senate senator send
senior sense sensitive sensor sentence sentiment separate sequence serial series serious serve
server service
session set setting settle settlement setup seven several severe sex sexual sexy shade shadow
shake shall shallow shame shape share shareholder sharp shave sheet shelf shell shelter shift
shine ship shipment shipping shirt shock shoe shoot shop shopping shore short shortcut shot should
shoulder shout show shower shut shy sick side sight sign signal signature significant significance
silence silent silly silver similar simple simply simulate simulation simultaneous sin since sing
singer single sink
sir sister sit site situation size skill skin skip sky slave sleep slice slide slight slip slogan
slow small smart smartphone smell smile smoke smooth snack snake snap snow so soap soccer social
society sock soft software soil solar soldier sole solid solo solution solve some somebody someday
somehow someone something sometimes somewhere son song soon sophisticated sorry sort soul sound
soup source south space spam spare speak speaker special specialist species specific specify
specification spectrum speech
speed spell spelling spend sperm spice spicy spin spirit spiritual split spoil sponsor spoon sport
spot spouse spray spread spreadsheet spring square squeeze stable stack stadium staff stage stain
stair stake stand standard star stare start startup starve state statement station statistic
statistical statue status stay steal steam steel steep step stick still stimulate stock stomach
stone stop storage store storm story straight strain strange stranger strategic strategy stream
street strength stress stretch strict strike string
strip stroke strong structural structure struggle student studio study stuff stupid style subject
submit subscribe subscription subsequent subset substance substantial substitute succeed success
successful such sudden suddenly suffer sugar suggest suggestion suicide suit suitable suitcase sum
summary summer sun super superior supermarket supplement supply support supporter suppose supreme
sure surface surgeon surgery surprise surrender surround survey survival survive suspect suspend
sustain sustainable swallow swap swear sweat sweep sweet swim swing
switch sword syllabus symbol symmetry sympathy symptom syndrome synonym syntax synthesis system
table tablet tackle tactic tag tail take tale talent talk tall tank tap tape target task taste
tattoo tax taxi tea teach teacher team tear tease technical technique technological technology
teenager telephone television tell temper temperature temple temporary tempt ten tend tendency
tenant tennis tension tent term terminal terminate terminology terms terrible terrify territory
terror terrorism terrorist test testament testify text textbook textile texture than thank
theater theft theme theorem theoretical theory therapist therapy there therefore thermal thesis
thick thief thin thing think third thirst thought thousand thread threat threaten three threshold
throat throne through throughout throw thumb thunder ticket tie tiger tight tile time timeline
timeout tiny tip tire tired tissue title toast tobacco today toe together toilet token tolerate
toll tomato tomorrow tone tongue tonight tool tooth top topic total touch tough tour tourism
tourist tournament toward towel tower town toxic toy trace track trade trader tradition
traditional
traffic tragedy trail train trainer training trait transaction transfer transform transformation
transgender transit transition translate translation translator transmission transmit transparent
transport transportation trap trash trauma travel traveler treasure treat treatment treaty tree
trend trial triangle tribe trick trigger trillion trip troop trouble truck true truly trust truth
try tube tuition tune tunnel turn tutor tutorial twelve twice twin twist type typical typically
ugly ultimate umbrella unable uncle unconscious under undergraduate understand understanding
unemployment unexpected unfair
unfortunate unfortunately uniform union unique unit unite universal universe university unknown
unless unlike unlikely unusual upcoming update upgrade upper upset urban urge urgent usage use
useful useless user usual usually utility vacation vaccine vacuum vague valid valley valuable
value van vampire variable variance variation variety various vary vast vector vegan vegetable
vegetarian vehicle venture venue verb verdict verify version versus vertical very vessel veteran
via victim victory video view viewer village violate violence violent virgin virtual virtue virus
visa visible vision visit visitor
visual vital vitamin vocabulary voice volcano volume volunteer vote voter vulnerable wage wait
wake walk wall wallet want war warm warn warning warranty wash waste watch water wave way weak
weakness wealth wealthy weapon wear weather web website wedding week weekend weekly weigh weight
weird welcome welfare well west western wet whale whatever wheat wheel whenever wherever whether
whichever while whisper white whoever whole wide widespread wife wild wildlife will win wind
window wine wing winner winter wipe wire wireless wisdom wise wish witch withdraw within witness
wolf woman wonder wonderful
wood wooden word work worker workflow workforce workout workplace workshop world worldwide worry
worse worship worst worth worthy wound wrap wrist write writer writing wrong yard yeah year yell
yellow yes yesterday yet yield yoga young youth zone zoo
adjective adverb advisor algorithm allegation alphabet amateur ambassador ankle annually antibody
anxiety applicant apprentice aquarium arrow arson assassin asteroid auditor authentication
autonomous backend backup balloon bandwidth barcode barrister beneficiary beverage biotech bitcoin
blockchain blogger bluetooth boilerplate bookmark boolean bot boundary breach broker brochure
buffer bulk bundle bureau cafe camping cancellation capitalism carbohydrate cardiac cartoon
catalog cashier checklist chip cholesterol chronic citation claimant clinical cognitive colonial
commodity
commute compliance compound concise conjunction consonant conspiracy constraint contagion
coordinate cosmic counsel coupon cosmetics covenant cuisine cursor curry custody debug debugger
decimal decorator defendant delegate deletion demo demographic denial deposition deprecate deputy
dessert detention diagnosis diagram dialect diameter disclaimer disclose discretion disposal
divine dividend dizzy doctrine dormitory driveway drone dungeon dye ebook eclipse ecommerce
ecosystem elastic electorate emoji emission empathy encryption endpoint endurance enzyme equator
escrow essence etiquette exemption expenditure
exponent fatigue felony feminism feminist ferment fertilizer fiance firewall fiscal flashcard
flask flu foam foreclosure franchise frequent galactic gaming gardener gateway gluten glossary
gourmet graphics gravity guardian guidance gut hangover hashtag hazard heading herb herbal
heritage homepage hormone hub humidity hydration hygiene hyperlink hypothetical icing immigrate
incentive indictment inheritance ink inmate inning inpatient insomnia instructor intern internship
inventory iteration itinerary jurisdiction kernel keyword lambda landmark latency latitude layoff
leaflet lemma lethal liable libel lime litre loophole
longitude lottery lyrics macro malware mandate manifesto manuscript marathon marker marketplace
martial medal memo mentor merger metabolism metadata meteor microphone microscope migraine
mindfulness minimalist minivan misdemeanor moderator moisture monarch monarchy mono monthly
mutation narrator nausea navigator nausea negligence neutron niche nominee noun nutrient oath
offset omega onboarding optics orchestra orientation outage outdated outpatient outsource oversee
packet pandemic paragraph paraphrase parliament parole patent pathology pavement payload payroll
pedestrian perjury permutation perimeter pharmacy philosopher plagiarism
plaintiff planner playoff pleading plugin plural podcast polymer pop portfolio postal postpone
potassium preschool preview probation prompt pronoun prosecution prospect prototype provision
proxy psychiatrist pyramid python quarterback quarterly questionnaire quota rally ransom rash
realtor rebate rebuild recession recipient recursion recursive redeem referee referendum refactor
refinance regression rehearsal relay remedy reminder remorse remodel renovate renovation rephrase
replica reptile reschedule retailer retirement retry roadmap router runtime sanction savings
scalable schema scoreboard screenwriter script seasonal seller semantic semester
seminar sequel shipment shortage showroom shutdown simile skeleton slang slot smartwatch snippet
solvent spam spouse sprint spyware squad stakeholder startup statute steak stereotype stipend sue
evict insulate chase mow prune harvest plant sew knit paddle mentor
storyline streamline subfolder sublet subtitle suffix supplier surcharge surplus syllable symphony
syndicate synopsis tariff taxpayer template tenure testimony thermostat thumbnail timestamp
timesheet tipping topology toolkit tracker transcript trademark trailer transplant treadmill
trekking triage tribunal troubleshoot tsunami turnover typo unicode uninstall unzip username
utensil vacancy validate validation vendor verdict verify veterinary vinegar
volleyball vowel voucher waiter waiver wardrobe warehouse warfare webinar weekday whistle widget
wifi workbook worksheet yearly
pill tablet capsule surgeon vaccine dosage clinic symptom headache nausea rash
chore closet couch curtain drawer faucet fireplace furniture lawn mattress mirror pillow plumbing
porch rug shelf sofa
achievement agreement amazement announcement argument arrangement assessment commitment department
employment engagement environment equipment establishment government improvement investment
involvement judgment movement payment replacement requirement settlement statement treatment
beginner expert novice grade grader layman
cleanse detox bloat fasting flush lying guilt breakup crush flirt dating divorce hug kiss lonely
romantic soulmate virginity weird introvert extrovert
quit scam spoiler troll upvote meme selfie hashtag follower influencer viral username profile
hacked recover inbox
demonetization demonetisation rupee lakh crore
freshers fresher coaching syllabus cutoff aspirant placement semester undergraduate postgraduate
bachelor masters mba phd btech engineering entrance
astrology horoscope karma reincarnation soul afterlife heaven hell
"""
