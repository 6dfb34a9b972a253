"""Places, peoples and languages, by class: facts, listed by ourselves.

A line is `class: members`; `/` joins spellings of one member, `_` stands for a space.
"""

from __future__ import annotations

CLASSES = """
country: afghanistan/afghan albania/albanian algeria/algerian andorra angola/angolan
  argentina/argentine/argentinian armenia/armenian australia/australian austria/austrian
  azerbaijan bahamas bahrain bangladesh/bangladeshi barbados belarus belgium/belgian belize benin
  bhutan bolivia/bolivian bosnia botswana brazil/brazilian brunei bulgaria/bulgarian burundi
  cambodia/cambodian cameroon canada/canadian chad chile/chilean china/chinese/prc
  colombia/colombian congo costa_rica croatia/croatian cuba/cuban cyprus/cypriot
  czechia/czech/czech_republic denmark/danish ecuador egypt/egyptian el_salvador england/english
  estonia/estonian ethiopia/ethiopian fiji finland/finnish france/french gabon gambia georgia
  germany/german ghana/ghanaian greece/greek greenland guatemala guinea guyana haiti/haitian
  honduras hong_kong hungary/hungarian iceland/icelandic india/indian indonesia/indonesian
  iran/iranian iraq/iraqi ireland/irish israel/israeli italy/italian ivory_coast jamaica/jamaican
  japan/japanese jordan/jordanian kazakhstan kenya/kenyan kosovo kuwait/kuwaiti laos
  latvia/latvian lebanon/lebanese lesotho liberia libya/libyan liechtenstein lithuania/lithuanian
  luxembourg macau madagascar malawi malaysia/malaysian maldives mali malta/maltese mauritius
  mexico/mexican moldova monaco mongolia/mongolian montenegro morocco/moroccan mozambique
  myanmar/burma/burmese namibia nepal/nepalese/nepali netherlands/dutch/holland new_zealand
  nicaragua niger nigeria/nigerian north_korea north_macedonia norway/norwegian oman
  pakistan/pakistani palestine/palestinian panama paraguay peru/peruvian
  philippines/filipino/philippine poland/polish portugal/portuguese puerto_rico qatar/qatari
  romania/romanian russia/russian rwanda saudi_arabia/saudi scotland/scottish senegal
  serbia/serbian singapore/singaporean slovakia/slovak slovenia somalia/somali
  south_africa/south_african south_korea/korea/korean/south_korean spain/spanish
  sri_lanka/sri_lankan sudan/sudanese suriname sweden/swedish switzerland/swiss syria/syrian
  taiwan/taiwanese tanzania thailand/thai tibet/tibetan togo trinidad tunisia/tunisian
  turkey/turkish uganda/ugandan ukraine/ukrainian uruguay
  usa/american/americans/united_states/usa/us_country uk/british/britain/united_kingdom uae
  uzbekistan vatican venezuela/venezuelan vietnam/vietnamese wales/welsh yemen zambia zimbabwe eu
  ussr/soviet
continent: africa/african antarctica asia/asian europe/european north_america south_america
  oceania latin_america middle_east scandinavia balkans caribbean
state: alabama alaska arizona arkansas california/californian colorado connecticut delaware
  florida hawaii idaho illinois indiana iowa kansas kentucky louisiana maine maryland
  massachusetts michigan minnesota mississippi missouri montana nebraska nevada new_hampshire
  new_jersey new_mexico north_carolina north_dakota ohio oklahoma oregon pennsylvania rhode_island
  south_carolina south_dakota tennessee texas/texan utah vermont virginia west_virginia wisconsin
  wyoming ontario quebec british_columbia alberta bavaria punjab kerala gujarat maharashtra
  karnataka tamil_nadu rajasthan bihar goa queensland tasmania
city: london paris berlin madrid rome lisbon vienna prague warsaw budapest athens dublin brussels
  amsterdam rotterdam copenhagen stockholm oslo helsinki reykjavik zurich geneva basel bern milan
  naples turin venice florence bologna palermo barcelona seville valencia porto munich hamburg
  cologne frankfurt stuttgart dresden leipzig lyon marseille toulouse bordeaux edinburgh glasgow
  manchester liverpool birmingham leeds bristol oxford cardiff belfast moscow st_petersburg
  kyiv/kiev minsk riga vilnius tallinn krakow bucharest sofia belgrade zagreb sarajevo istanbul
  ankara izmir cairo alexandria casablanca marrakesh tunis algiers lagos abuja nairobi mombasa
  accra dakar addis_ababa johannesburg cape_town durban pretoria kinshasa tel_aviv jerusalem
  beirut amman damascus baghdad tehran riyadh jeddah mecca dubai abu_dhabi doha karachi lahore
  islamabad delhi/new_delhi mumbai/bombay bangalore/bengaluru chennai/madras kolkata/calcutta
  hyderabad pune ahmedabad jaipur lucknow kanpur nagpur indore bhopal patna kochi chandigarh
  gurgaon noida dhaka kathmandu colombo bangkok phuket chiang_mai hanoi saigon/ho_chi_minh_city
  phnom_penh kuala_lumpur jakarta bali manila cebu beijing/peking shanghai guangzhou shenzhen
  chengdu wuhan taipei seoul busan tokyo osaka kyoto nagoya sapporo fukuoka hiroshima nagasaki
  sydney melbourne brisbane perth adelaide canberra auckland wellington christchurch toronto
  montreal vancouver ottawa calgary edmonton winnipeg halifax mexico_city cancun guadalajara
  havana bogota medellin lima quito caracas santiago buenos_aires montevideo sao_paulo
  rio_de_janeiro/rio brasilia nyc los_angeles san_francisco san_diego san_jose sacramento oakland
  seattle portland spokane denver boulder phoenix tucson las_vegas/vegas reno boise salt_lake_city
  albuquerque santa_fe dallas houston austin san_antonio fort_worth el_paso oklahoma_city tulsa
  kansas_city omaha minneapolis milwaukee chicago detroit cleveland cincinnati indianapolis
  louisville nashville memphis atlanta charlotte raleigh charleston savannah miami orlando tampa
  jacksonville new_orleans baton_rouge birmingham pittsburgh philadelphia boston albany newark
  baltimore washington_dc honolulu anchorage brooklyn manhattan bronx
language: latin sanskrit hebrew arabic hindi urdu bengali tamil telugu marathi gujarati kannada
  malayalam persian/farsi pashto kurdish swahili yoruba igbo zulu hausa amharic mandarin cantonese
  tagalog malay catalan basque galician yiddish esperanto gaelic maori hawaiian sinhala khmer
direction: north/northern south/southern east/eastern west/western northeast/ne northwest/nw
  southeast/se southwest/sw
planet: venus earth mars jupiter saturn uranus neptune pluto moon sun
ocean: atlantic pacific arctic mediterranean baltic
"""
