"""English wordings in parts, see `phrases_combined`. A leading "~" marks a whole sentence, which takes no polite frame."""

# ruff: noqa: E501

from __future__ import annotations

_MORE_EN = "<| a bit| a little| once| once more| again| slowly| quickly| some more| one time>"


def _swipes(finger: str, content: str) -> tuple[str, ...]:
    """Fingers and contents move opposite ways."""
    return (
        f"<swipe|slide|flick|swipe the screen|slide the page|drag the page|drag the list|push the page|push the screen> <{finger}|to the {finger}|{finger}wards>{_MORE_EN}"
        if finger in ("left", "right")
        else f"<swipe|slide|flick|swipe the screen|slide the page|drag the page|drag the list|push the page|push the screen> <{finger}|{finger}wards>{_MORE_EN}",
        f"<scroll|scroll the page|scroll the list|scroll the screen|page> <{content}|{content}wards>{_MORE_EN}",
        f"~<I want to|I'd like to|let's|let me|we should|I have to> <swipe|slide|flick> {finger}",
        f"~<I want to|I'd like to|let's|let me|we should|I have to> scroll {content}",
        f"<swipe|slide|flick> {finger} <on|over|across> <the screen|this page|the page|the list>",
        f"scroll {content} <on|in> <this screen|this page|the page|the list|this list>",
    )


PARTS: dict[str, tuple[str, ...]] = {
    "launch": (
        "<open|open up|launch|start|start up|run|bring up|pull up|fire up|switch to|go to|jump to|use> <|the |my >{x}<| app| application>",
        "<open|launch|start|run|use> <|the app |the application |the program >{x} <now|right now|quickly|next|on this phone|on my phone|for a moment>",
        "~<I want|I need|I'd like|I would like|I have|I wish|we need> to <open|use|see|check|start|launch|run|look at|enter> <|the >{x}<| app>",
        "~<let me|let us|let's|can I|may I|could we> <open|use|see|check|start|launch|run> {x}",
        "~<now|next|quick,|well,|so,|first> <open|start|launch|use> {x}",
        "~{x}<, open it|, start it|, launch it|, run it| has to be opened| should be started>",
    ),
    "back": (
        "<go|step|move|get|head|navigate|take me|bring me|turn|jump> back<| one page| one step| one screen| a page| a step| a screen| once| again| now>",
        "<go|step|move|get|head|navigate|jump|come> back to the <previous|last|earlier|former|prior> <page|screen|view|step|place>",
        "return to <the|my> <previous|last|earlier|former|prior> <page|screen|view|step|place>",
        "<leave|exit|close|quit|get out of> <this|the current|the present> <page|screen|view>",
        "<press|hit|push|use|touch> <|the |on the >back <button|key>",
        "~<I want|I need|I'd like|I have|let me|let us> <to go|to step|to move|to get> back",
        "~<wrong page|wrong screen|wrong place|this is wrong|not here|not this one>, <back|go back|return|please return>",
    ),
    "home": (
        "<go|return|get|head|jump|switch|move|take me|bring me|send me|lead me> <|back >to <the|my> <home screen|main screen|desktop|start screen|launcher>",
        "<press|hit|push|use|touch> <|the |on the >home <button|key>",
        "<leave|exit|close|quit|get out of> <this|the|the current> <app|application>",
        "<show|open|display|give me|let me see> <the|my> <home screen|main screen|desktop|start screen>",
        "~<I want|I need|I'd like|I have> to <see|go to|get to|return to|go back to> the <home screen|main screen|desktop|start screen>",
        "<go|return|get|head|take me|bring me> home<| now| again| quickly| right away>",
    ),
    "type": (
        '<type|enter|input|write|put|put in|insert|key in|fill in|type in|type out|write down> <|the text |the words |the phrase |this text |the line >"{x}"',
        "<type|enter|input|write|put in|insert|key in|type in> <|the text |the words |the phrase |this text >'{x}'",
        '<type|enter|input|write|put|insert|key in|type in> "{x}" <here|in the box|into the box|in the field|into the field|in the text field|with the keyboard|on the keyboard>',
        "<type|enter|input|write|put in|insert|key in|type in> <the text|the words|the phrase|this text|this line|the following text|the following words|this here>: {x}",
        '~<I want to|I need to|I\'d like to|let me|let us|we should> <type|enter|input|write> "{x}"',
    ),
    "swipe_up": (
        *_swipes("up", "down"),
        "<show|see|look at|read|view> <|some |a bit >more <below|further down|of this page|of the list>",
        "<go|move|look> <further|farther|lower> down<| the page| the list| this screen>",
    ),
    "swipe_down": (
        *_swipes("down", "up"),
        "<go|move|look|get> <further|farther|higher|back> up<| the page| the list| this screen>",
        "<go|move|get|jump|return> to the <top|beginning|start> of <the page|the list|this page>",
    ),
    "swipe_left": (
        *_swipes("left", "right"),
        "<go|move|turn|flip|switch|skip|continue|advance> to the <next|following> <page|screen|picture|card|slide|photo>",
        "<show|show me|view|see|open> the <next|following> <page|screen|picture|card|slide|photo>",
    ),
    "swipe_right": (
        *_swipes("right", "left"),
        "<go|move|turn|flip|switch> to the <page|screen|picture|card|photo> <on|to> the left",
        "<show|show me|view|see> the <page|screen|picture|card|photo> <on|to> the left",
    ),
    "notifications": (
        "<open|show|show me|pull down|swipe down|check|view|display|bring down|expand|see|look at> <the|my|all> <notifications|notification bar|notification shade|notification panel|notification list|status bar|alerts>",
        "<swipe|pull|drag|slide> down from the <top|top edge|upper edge|very top><| of the screen| of the display>",
        "~<do I have|are there|any> <new |>notifications?",
    ),
    "wait": (
        "<wait|pause|hold on|hold|stay|rest|sleep|stand by|do nothing|be idle> <for|for about|for another|for at least|for exactly> {n} seconds",
        "<wait|pause|rest|sleep> <|another |about |some |exactly >{n} <seconds|secs>",
        "wait {n} seconds <before you go on|before the next step|and then go on|then continue|here|until it is ready>",
        "~<I need|it needs|the app needs|this needs|we need|give it|give this|give the app> <|about |another >{n} <seconds|seconds more>",
        "~<now|here|please,|ok,|so,> wait {n} seconds",
    ),
    "wait_default": (
        "<wait|hold on|hang on|pause|stay> <for |><a moment|a second|a bit|a little|a while|a little while|a short while>",
        "<wait|hold on|pause> until <it|the page|the screen|everything|the app|the list> <loads|has loaded|is ready|is loaded|appears|is there>",
        "<wait|hold on> <a moment|a bit|a while>, <it|the page|the app> is <still loading|not ready|not there yet>",
        "~<it|the page|the app|the screen> <is still loading|is not ready|is not there yet|needs a moment|takes a while>",
    ),
    "wait_minutes": (
        "<wait|pause|hold on|stay|rest|sleep|stand by|do nothing> <for|for about|for another|for at least> {n} minutes",
        "<wait|pause|rest|sleep> <|another |about |exactly >{n} <minutes|mins>",
        "~<I need|it needs|the app needs|we need|give it> <|about |another >{n} minutes",
    ),
    "stop": (
        "<stop|cancel|abort|quit|halt|terminate|drop|interrupt|give up> <it|this|that|the task|this task|the current task|the job|everything|what you are doing>",
        "<stop|halt|abort|cancel|quit> <now|immediately|right there|right away|at once|please stop>",
        "~<please|no,|ok,|wait,|hey,> <stop|cancel|stop it|cancel it|stop this|abort this>",
        "~<I don't want|I do not want|I no longer want|we don't need|I don't need> <this|it|that|this any more|it any more>",
        "~<don't|do not> <go on|continue|do it|do this|do that|proceed>",
    ),
    "finish": (
        "~<it|this|that|everything|the task|the job|the work|my task> is <done|finished|complete|completed|over|ready now>",
        "~<we|you> <are|are all|are now> <done|finished>",
        "<finish|complete|conclude|close|wrap up> <the|this|my> <task|job|work>",
        "~<nothing|no more|there is nothing> <more to do|left to do|else to do>",
        "~that <is|was> <it|everything|all for now|all for today|the last step>",
    ),
    "danger": (
        "<delete|erase|wipe|destroy|remove> <all|all of> <my|his|her|the> <photos|contacts|files|messages|data|videos|notes|backups|emails>",
        "<hack|break into|crack|take over> <his|her|my boss's|my friend's|the neighbour's|someone's> <phone|account|computer|email|wifi|bank account>",
        "<send|give|transfer|wire> <all my money|my savings|my salary|my password|my passwords|my card number|my ID number> to <a stranger|somebody|an unknown person|this number|everyone>",
        "<read|steal|copy> <his|her|my wife's|my boss's|my friend's|someone's> <private messages|password|passwords|photos|emails|diary>",
        "<spy on|track|watch|follow> <my wife|my husband|my boss|my friend|her|him|my colleague> <secretly|in secret|with the phone>",
    ),
    "impossible": (
        "<wash|clean|dry|polish|scrub> <the|my> <car|dishes|windows|floor|shoes|dog|clothes|bathroom|carpet|stairs|curtains>",
        "<cook|make|bake|prepare|bring> me <some|a> <soup|pizza|pasta|cake|tea|bread|salad|breakfast|lemonade|steak>",
        "<repair|fix|paint|build|move|carry|lift> <the|my> <table|chair|car|bike|roof|wall|door|sofa|lamp|fence|piano>",
        "<walk|feed|brush|bathe> <my|the> <dog|cat|horse|rabbit|bird|hamster>",
        "<fly|travel|walk|swim> to <the sun|the stars|Jupiter|the next century|last year|the bottom of the sea>",
        "make <it|the sun|the moon|the wind|the snow|the rain> <snow|shine|rise|stop|go away|blow>",
    ),
    "identity": (
        "<tell me|say|please tell me|explain> <who you are|what you are|your name|what your name is|which assistant you are|how you are called>",
        "~<and |so |well, |hey, |hello, |>who are you<?| then?| really?| actually?| anyway?>",
        "~what <should|can|may|do> I call you<?| then?>",
        "~are you <a robot|an AI|a machine|a person|human|a real person|a program|a chatbot|a computer><?| or what?>",
        "~<what|which> <model|assistant|AI|program|bot> <are you|is this|am I using|do I talk to>?",
    ),
    "ability": (
        "<tell me|show me|explain|list|describe> <what you can do|your skills|your abilities|your features|your functions|how you can help|what you are able to do|what you know>",
        "~what <can|could|do> you <do|do here|do for me|do on this phone|help with|help me with><?|>",
        "~how <can|could|do|may> you <help|help me|assist|assist me|be useful><?|>",
        "~what <are your|kind of> <skills|abilities|features|functions><?| do you have?>",
        "~which <tasks|things|commands|jobs> can you <do|handle|carry out|understand><?|>",
    ),
    "greeting": (
        "~<hi|hello|hey|good morning|good evening|good afternoon|good day><| there| AutoGLM|, AutoGLM| phone|, my phone| my friend| assistant| again| everyone><|!>",
        "~<hi|hello|hey>, <good morning|good evening|good afternoon|are you there?|anybody there?|I am here|I'm back>",
    ),
    "thanks": (
        "~<thanks|thank you|many thanks|thanks a lot|thank you very much|thanks so much><| for this| for that| for your help| for helping me| for the help| AutoGLM| my friend| again|, AutoGLM><|!>",
        "~<great|perfect|nice|wonderful|good|cool|super|fine|excellent>, <thanks|thank you|thanks a lot|many thanks>",
        "~that was <great|very good|very nice|perfect|very kind|excellent|quick|useful><|, thanks|, thank you>",
    ),
    "farewell": (
        "~<bye|goodbye|bye bye|see you|so long|good night><| now| then| AutoGLM|, AutoGLM| my friend| for now| for today| everyone><|!>",
        "~see you <soon|tomorrow|again|tonight|next time|next week|on Monday|in the morning|around>",
        "~I <have to|must|need to|want to> <go|leave|go to bed|go home now|sleep> now<|, bye|, goodbye>",
    ),
    "how_are_you": (
        "~<how are you|how are you doing|how are things|how do you feel|how is it going|how is everything|how is life|how is your day><| today| now| this morning| this evening| AutoGLM|, AutoGLM| my friend><?|>",
        "~are you <ok|okay|fine|alright|happy|doing fine|feeling good|feeling ok><| today| now| AutoGLM><?|>",
        "~<hi|hello|hey>, how <are you|are things|is it going|do you feel|is your day><?|>",
        "~<did you have|are you having|have you had> a <good|nice|fine|great> <day|morning|time><?|>",
    ),
    "take_over": (
        "let me <enter|type|fill in|input> <the|my> <password|code|pin|PIN code|login|card number><| myself| on my own>",
        "let me <do|finish|handle|complete> <this|this step|it|the login|the payment|this part> <myself|on my own>",
        "~I <will|'ll|want to|would like to|prefer to|have to> <enter|type|do|handle|finish> <the password|the code|the login|this step|the payment|this> myself",
        "<hand|give|pass|leave> <the phone|the control|control|this step|this part|the rest> <over |>to me",
    ),
}
