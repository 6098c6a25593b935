"""Tables of look-alike characters, misspellings and homophones of English; written for this library from general knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache


def _options(table: str) -> dict[str, tuple[str, ...]]:
    """``a:x,y b:z`` -> ``{"a": ("x", "y"), "b": ("z",)}``."""
    entries = (entry.split(":") for entry in table.split())
    return {key: tuple(options.split(",")) for key, options in entries}


# What optical character recognition takes for what. Every first letter of a pair has an entry of its own.
OCR: Mapping[str, tuple[str, ...]] = _options("""
    a:o,e,s b:h,6 c:e,o d:cl,o e:c,o f:t g:9,q h:b,n i:l,1,j j:i k:lc l:1,I,i m:rn,nn n:ri,u o:0,c,a p:n q:g,9 r:n,i s:5,a
    t:f,l u:n,ii v:y,u w:vv,uu x:k y:v z:2 rn:m nn:m cl:d vv:w uu:w ri:n ii:u
    A:4,R B:8,3 C:G,O D:O,0 E:F,B F:E,P G:6,C H:N,M I:l,1 J:I,U K:X L:I,l M:N N:M,H O:0,Q P:F,R Q:O,0 R:P,K S:5,8 T:I,7 U:V,O
    V:U,Y W:VV X:K Y:V Z:2,7
    0:O,o,D 1:l,I 2:Z,7 3:8,B 4:A,9 5:S,s 6:b,G 7:T,1 8:B,3 9:g,q
    и:н,п н:и,п ш:щ щ:ш п:л,н л:п,д ц:ш е:с,о с:е,о о:с,0 з:э,3 э:з ь:ъ,ы ъ:ь ы:ь б:6 в:а й:и ё:е
    З:3 О:0 Б:6 В:8 П:Л Л:П Ш:Щ Щ:Ш И:Н Н:И С:О Э:З
    α:ο,σ ο:σ,α σ:ο ν:υ,γ υ:ν γ:ν η:π π:η ι:ί ε:έ κ:χ χ:κ ρ:ο Ο:Θ,0 Θ:Ο Λ:Α Α:Λ Δ:Α
""")

_LATIN_LIKE = """
    a:а,α b:Ь c:с,ϲ d:ԁ e:е g:ɡ h:һ i:і j:ј k:к l:ӏ n:ո o:о,ο p:р,ρ q:ԛ r:г s:ѕ u:ս v:ν,ѵ w:ԝ x:х y:у
    A:А,Α B:В,Β C:С,Ϲ E:Е,Ε F:Ϝ G:Ԍ H:Н,Η I:І,Ι J:Ј K:К,Κ M:М,Μ N:Ν O:О,Ο P:Р,Ρ Q:Ԛ S:Ѕ T:Т,Τ V:Ѵ W:Ԝ X:Х,Χ Y:Υ,Ү Z:Ζ
"""


def _homoglyphs() -> dict[str, tuple[str, ...]]:
    """Latin letters, and the way back from Cyrillic and Greek ones."""
    table = _options(_LATIN_LIKE)
    back = {other: (latin,) for latin, others in table.items() for other in others}
    return {**back, **table}


HOMOGLYPHS: Mapping[str, tuple[str, ...]] = _homoglyphs()

LEET: Mapping[str, tuple[str, ...]] = _options("""
    a:4,@ b:8 e:3 g:9 i:1,! l:1 o:0 s:5,$ t:7,+ z:2
    A:4,@ B:8 E:3 G:6 I:1,! L:1 O:0 S:5,$ T:7,+ Z:2
""")

# Word -> misspellings that are common in English, in lower case.
_MISSPELLINGS = """
    abbreviate:abreviate absence:abscence,absense absolutely:absolutly abundance:abundence academic:acedemic
    accept:acept acceptable:acceptible access:acess accessible:accessable accident:accidant accidentally:accidently
    accommodate:accomodate accommodation:accomodation accompany:acompany according:acording account:acount
    achieve:acheive achievement:acheivement acknowledge:aknowledge acquaintance:aquaintance acquire:aquire
    across:accross,acros actually:actualy,acctually address:adress admission:admision advice:advise again:agian,agin
    against:agianst,aganst aggressive:agressive all:al almost:allmost alone:alown along:allong already:allready,alredy
    also:aslo,allso although:altho,allthough always:alwasy,allways am:ma amateur:amatuer among:amoung amount:ammount
    an:na analysis:analisys ancient:anceint and:adn,an annual:anual another:anohter answer:anwser any:nay
    anything:anythign apparent:aparent,apparant apparently:apparantly appearance:appearence appointment:apointment
    appropriate:apropriate approximately:aproximately are:aer area:aera argument:arguement around:arround as:sa
    ask:aks assistance:assistence at:ta athlete:athelete attempt:atempt attendance:attendence audience:audiance
    available:availible,avaliable average:avrage aware:awear awful:awfull awkward:akward back:bakc balance:ballance
    bargain:bargin basically:basicly be:eb beautiful:beatiful,beautifull because:becuase,becouse become:becom
    been:ben,bin before:befor,beofre beginning:begining behaviour:behavour behind:behing being:bieng belief:beleif
    believe:beleive,belive below:bellow benefit:benifit best:bets better:beter between:betwen,beetween bicycle:bycicle
    blood:blod boundary:boundry breath:breth bring:brign brother:bother building:buidling
    business:buisness,bussiness but:btu,butt buy:bye by:yb calendar:calender came:caem can:cna cannot:cannnot,connot
    careful:carefull carefully:carefuly category:catagory cemetery:cemetary certain:certian
    certainly:certainlly chance:chanse change:chagne,cahnge changeable:changable chest:ches,chset chief:cheif
    child:chlid children:childern choose:chose clearly:clearely clothes:cloths colleague:collegue column:colum
    come:coem comfortable:comfterble coming:comming commission:comission committed:commited
    committee:comittee,commitee common:comon community:comunity company:compnay comparison:comparision
    competition:compitition complete:compleet completely:completly,completley condition:condtion conscience:concience
    conscious:concious consider:concider consistent:consistant continue:contineu control:controll
    convenient:convienient correct:corect could:coud,cuold country:contry course:coarse criticism:critisism
    curiosity:curiousity current:currant customer:custumer daily:dayly daughter:daugther day:dya days:dyas,daies
    deceive:decieve decide:deside decision:desicion,decison definite:definate definitely:definately,definatly
    description:discription desperate:desparate despite:dispite develop:develope development:developement diary:dairy
    dictionary:dictionery did:ddi difference:diffrence,differance different:diffrent,differant difficult:dificult
    digit:diget dinner:diner disappear:dissapear disappoint:dissapoint disappointed:dissapointed disease:desease do:od
    doctor:docter does:dose doesn't:dosen't,doesnt don't:dont done:doen down:donw each:eahc early:erly easily:easyly
    eight:eigth either:eather embarrass:embarass emergency:emergancy end:edn enough:enuogh,enought entirely:entirly
    environment:enviroment,enviorment equipment:equiptment,equipement especially:especialy,expecially even:evn,evne
    evening:evning every:evrey,evry everyone:everone everything:everthing exactly:exacly exaggerate:exagerate
    excellent:excelent,excellant except:exept exercise:excercise,exersize existence:existance expect:exspect
    expensive:expencive experience:experiance,expirience explain:explane explanation:explaination extremely:extremly
    eye:eey eyes:eys familiar:familar family:famly,familly far:farr fascinating:facinating father:fahter
    favourite:favorit february:febuary fever:feaver,feever few:fwe field:feild finally:finaly find:fidn first:frist
    five:fiev follow:folow food:fodo for:fro,fo foreign:foriegn forty:fourty forward:foward four:foru
    friend:freind,frend friends:freinds from:form,frmo front:frount fulfil:fullfil further:furthur general:genral
    generally:generaly get:egt girl:gril give:giev given:givne go:og going:giong,goign good:godo
    government:goverment,govenment grammar:grammer grateful:greatful great:graet group:gruop
    guarantee:garantee,gaurantee guard:gaurd guess:geuss guidance:guidence had:hda half:halve happen:hapen
    happened:happend happiness:happyness happy:hapy harass:harrass hard:hadr has:ahs have:ahve,hvae he:eh head:haed
    hear:heer heard:herd heart:haert height:heigth,hieght help:hlep her:hre here:hree,hear high:hihg him:hmi his:hsi
    home:hoem hospital:hospitle hour:huor house:huose how:hwo however:howver,howevr humorous:humerous hundred:hunderd
    hygiene:hygeine i'm:im idea:ideea if:fi image:imige imagine:imagin immediately:immediatly,imediately
    important:importent,improtant in:ni incident:incidant including:includeing independent:independant
    indispensable:indispensible information:infomation,informatoin intelligence:inteligence interest:intrest
    interesting:intresting,intersting into:inot introduce:intraduce irrelevant:irrelevent is:si island:iland
    isn't:isnt it:ti it's:its its:it's january:janurary jewellery:jewelery judgement:judgemant just:jsut,juts
    keep:kepe kind:kidn know:konw,kno knowledge:knowlege known:knwon laboratory:labratory language:langauge,languge
    large:lareg larger:lager,largger last:lsat later:latter laugh:laff laughter:laugther learn:lern least:lest
    left:letf leisure:liesure length:lenght less:les let's:lets letter:leter level:levle library:libary
    licence:lisence life:lief light:lihgt lightning:lightening like:liek likely:likley listen:lisen
    little:littel,litle live:lvie long:logn look:loook looking:lookign lose:loose made:maed
    maintenance:maintainence,maintenence make:amke making:makeing man:amn many:mnay marriage:marrage,marraige
    maybe:mabye me:em mean:maen meant:ment medicine:medecine medieval:medeval message:mesage might:mihgt
    millennium:millenium million:milion miniature:minature minute:minuet mischievous:mischievious mistake:misteak
    moment:momment money:mony month:monht more:moer morning:moring,mornign most:msot mother:mohter mountain:mountian
    much:muhc music:musci must:msut my:ym myself:myslef naturally:naturaly near:naer necessary:neccessary,necesary
    need:nede neighbour:nieghbour never:nevr new:nwe next:nxet night:nite,nihgt nine:nien ninety:ninty no:on
    nobody:noboby north:nroth not:nto note:noet nothing:nothign noticeable:noticable now:nwo number:numbr,nubmer
    occasion:ocasion,occassion occasionally:occasionaly occur:ocur occurred:occured occurrence:occurence of:fo,ov
    off:of office:ofice official:offical often:offen,oftne old:odl on:no once:onec one:oen only:olny,onyl open:oepn
    opinion:opinoin opportunity:oppurtunity,oportunity or:ro other:ohter,otehr our:uor out:otu over:ovre,oevr own:onw
    paid:payed pain:pian paper:papper parallel:paralell parliament:parliment particular:particuler
    particularly:particulary past:passed patient:patiant,pateint pattern:patern people:poeple,peopel perform:preform
    perhaps:perhpas permanent:permanant personal:personel phenomenon:phenomenom
    physical:phisical piece:peice place:palce plan:paln play:paly please:plese,plaese point:piont police:polise
    politician:politican possession:posession possible:possable,posible possibly:possibley
    prefer:preffer preferred:prefered presence:presense pretty:prety prevalent:prevelant principle:principal
    privilege:priviledge,privelege probably:probaly,propably problem:probelm,porblem process:proccess
    profession:proffesion professional:proffesional professor:proffessor programme:programe prominent:prominant
    pronunciation:pronounciation psychology:phsychology publicly:publically put:ptu quality:qualty quantity:quanity
    question:quesiton,questoin questionnaire:questionaire quick:qiuck quickly:quikly quiet:queit quite:qutie read:raed
    ready:redy real:reel really:realy,relly reason:reson receipt:reciept receive:recieve,receve
    received:recieved receiving:recieving,receving recognise:reconise recommend:recomend,reccommend red:erd
    reference:referance referred:refered regular:reguler relevant:relevent religious:religous remember:rember,remeber
    repetition:repitition report:reprot reports:reprots,repots require:requier resistance:resistence
    responsibility:responsability responsible:responsable restaurant:restaraunt,resturant rhythm:rythm,rythym
    ridiculous:rediculous right:rihgt room:roome running:runing said:siad,sayed same:smae sandwich:sandwhich saw:swa
    say:sya scary:scarey schedule:scedule school:shcool,scool science:sceince second:secound secretary:secratary
    see:ese seize:sieze sense:sence sentence:sentance separate:seperate separately:seperately sergeant:sargent
    serious:seriuos seven:sevne several:severel she:hse shining:shineing should:shoud,shuold show:hsow side:sied
    sight:site significant:signifigant similar:similer,simular simple:simpel since:sinse,sicne sincerely:sincerly
    six:sxi small:smal so:os some:soem somebody:sombody something:somthing,someting sometimes:sometims soon:sonn
    special:speical specific:pacific speech:speach still:stil stop:stpo story:stroy straight:strait strange:stange
    strategy:stratagy street:stret strength:strenght stretch:strech strong:storng student:studnet stupid:stoopid
    subtle:suttle success:succes successful:succesful,successfull such:shuch suddenly:suddenely summer:sumer
    superintendent:superintendant supersede:supercede support:suport sure:shure surely:surley
    surprise:suprise,surprize surprised:suprised symptom:symtom system:sytem,systme table:tabel take:taek
    teacher:techer tell:tel temperature:temperture,temprature ten:tne tendency:tendancy than:then,htan that:taht,htat
    the:teh,hte their:thier,there them:tehm then:thne there:ther,thier therefore:therefor these:theese,tehse
    they:tehy,thay they're:theyre,their thing:thign things:thigns think:thikn,thnik this:thsi,htis thorough:thourough
    those:thsoe though:thogh thought:thougth thousand:thousend three:thre,htree threshold:threshhold
    through:thru,throught time:tiem to:ot today:todya together:togather,togehter told:tolde tomatoes:tomatos
    tomorrow:tommorow,tommorrow tonight:tonite too:to,tooo took:tok town:twon tragedy:tradgedy transferred:transfered
    tries:trys true:ture truly:truely try:tyr twelfth:twelth two:tow,tw under:udner
    understand:undertand unfortunately:unfortunatly,unfortunatley university:univeristy unnecessary:unecessary
    until:untill up:pu upon:apon us:su use:ues used:usde useful:usefull usual:ususal usually:usualy,usally
    vacuum:vaccuum valuable:valueable vegetable:vegtable vehicle:vehical very:vrey,verry view:veiw village:vilage
    visible:visable visitor:visiter waiting:wating want:wnat wanted:wnated was:wsa water:watre way:wya we:ew
    weather:wether,wheather wednesday:wensday week:wek weigh:wiegh weight:wieght weird:wierd welcome:wellcome well:wel
    went:wnet were:wher,wer what:waht,whta wheel:weel when:wehn,wen where:whre,wher whether:wether which:whcih,wich
    while:whiel white:wihte who:hwo whole:hole whose:who's why:wyh will:wil,wiil with:wiht,whit without:withuot,witout
    woman:women wonderful:wonderfull word:wrod words:wrods work:wrok working:workign world:wrold
    worse:worst,wrose worth:wroth would:woud,wuold write:wirte writing:writting written:writen wrong:worng year:yaer
    years:yaers yellow:yelow yesterday:yesturday yet:eyt yield:yeild you:yuo,yoo you're:your,youre young:yuong
    your:youre,yoru yours:your's
"""

# Words that sound alike in at least one widespread accent of English.
_HOMOPHONES = """
    ad,add ail,ale air,heir aisle,isle,i'll all,awl allowed,aloud altar,alter ant,aunt arc,ark ascent,assent ate,eight
    aural,oral away,aweigh bail,bale bald,bawled ball,bawl band,banned bare,bear baron,barren base,bass bay,bey be,bee
    beach,beech bean,been beat,beet beau,bow beer,bier bell,belle berry,bury berth,birth billed,build bite,byte
    blew,blue boar,bore board,bored bolder,boulder born,borne bough,bow boy,buoy brake,break bread,bred brews,bruise
    bridal,bridle but,butt buy,by,bye caller,collar carat,carrot cast,caste caught,court ceiling,sealing cell,sell
    cellar,seller censor,sensor cent,scent,sent cereal,serial check,cheque chews,choose chord,cord chute,shoot
    cite,sight,site clause,claws climb,clime close,clothes coarse,course colonel,kernel complement,compliment
    core,corps council,counsel creak,creek crews,cruise currant,current dam,damn days,daze dear,deer desert,dessert
    dew,due die,dye discreet,discrete doe,dough draft,draught dual,duel earn,urn ewe,you,yew eye,i,aye faint,feint
    fair,fare farther,father fate,fete feat,feet find,fined fir,fur flair,flare flea,flee flew,flu,flue flour,flower
    for,four,fore fort,fought forth,fourth foul,fowl gait,gate genes,jeans gilt,guilt great,grate groan,grown
    guessed,guest hail,hale hair,hare hall,haul hay,hey heal,heel,he'll hear,here heard,herd heroin,heroine hew,hue
    hi,high him,hymn hoarse,horse hole,whole holy,wholly hour,our idle,idol in,inn its,it's jam,jamb key,quay
    knead,need knew,new knight,night knit,nit knot,not know,no knows,nose lain,lane laps,lapse larva,lava laid,lade
    lead,led leak,leek lean,lien least,leased lessen,lesson levee,levy liar,lyre links,lynx loan,lone loot,lute
    made,maid mail,male main,mane maize,maze manner,manor mantel,mantle mare,mayor marshal,martial mask,masque
    maw,more meat,meet medal,meddle metal,mettle might,mite mince,mints mind,mined miner,minor missed,mist moan,mown
    mode,mowed moor,more morning,mourning muscle,mussel mustard,mustered naval,navel nay,neigh none,nun oar,or,ore
    one,won overdo,overdue paced,paste packed,pact pail,pale pain,pane pair,pare,pear palate,palette passed,past
    patience,patients pause,paws pea,pee peace,piece peak,peek,pique pearl,purl pedal,peddle peer,pier plain,plane
    pleas,please plum,plumb pole,poll pore,pour,poor practice,practise praise,prays,preys presence,presents
    prince,prints principal,principle prise,prize profit,prophet rain,reign,rein raise,rays,raze rap,wrap raw,roar
    read,reed red,read real,reel reek,wreak rest,wrest review,revue right,write,rite ring,wring road,rode,rowed
    roam,rome role,roll root,route rose,rows rote,wrote rough,ruff rung,wrung rye,wry sail,sale sauce,source
    saw,soar,sore scene,seen sea,see seam,seem sear,seer seas,sees,seize sects,sex shake,sheikh shear,sheer shore,sure
    side,sighed sighs,size slay,sleigh sleight,slight sloe,slow so,sew,sow soared,sword sole,soul some,sum son,sun
    sort,sought spade,spayed staid,stayed stair,stare stake,steak stationary,stationery steal,steel step,steppe
    stile,style storey,story straight,strait suite,sweet tacks,tax tail,tale talk,torque tea,tee team,teem tear,tier
    teas,tease tern,turn their,there,they're threw,through throne,thrown tide,tied time,thyme tire,tyre to,too,two
    toad,towed,toed toe,tow told,tolled ton,tun tor,tore troop,troupe vain,vane,vein vale,veil vial,vile wade,weighed
    wail,whale waist,waste wait,weight waive,wave wander,wonder war,wore ware,wear,where warn,worn wart,wort watt,what
    wax,whacks way,weigh,whey we,wee we'd,weed we'll,wheel we've,weave weak,week weather,whether weir,we're were,whirr
    which,witch while,wile whine,wine white,wight who's,whose wood,would world,whirled yoke,yolk yore,your,you're
"""

_ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
ONES = tuple(_ONES.split())
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
FILLERS = ("uh", "um", "er", "like", "you know", "i mean", "well", "so")


@cache
def misspellings() -> Mapping[str, tuple[str, ...]]:
    """Word of English, in lower case -> common misspellings."""
    return _options(_MISSPELLINGS)


@cache
def homophones() -> Mapping[str, tuple[str, ...]]:
    """Word of English, in lower case -> words that sound like it; of all groups that it is in."""
    found: dict[str, list[str]] = {}
    for group in homophone_groups():
        for word in group:
            others = found.setdefault(word, [])
            others += [other for other in group if other != word and other not in others]
    return {word: tuple(others) for word, others in found.items()}


def homophone_groups() -> list[tuple[str, ...]]:
    """Groups of words that sound alike."""
    return [tuple(group.split(",")) for group in _HOMOPHONES.split()]
