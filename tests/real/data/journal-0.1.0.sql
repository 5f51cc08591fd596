pragma auto_vacuum = 2;
pragma user_version = 1;
pragma application_id = 0;
BEGIN TRANSACTION;
CREATE TABLE facts (name text primary key, value text not null);
INSERT INTO "facts" VALUES('ports','{"worker": 34445, "relay": 34283, "local": 37027, "control": 34279}');
CREATE TABLE past (
    job text primary key, ended real not null, bytes integer not null, told text not null,
    workers text not null, identity text not null
);
INSERT INTO "past" VALUES('dc59a19013a1',1.79580206996352386471e+09,2532,'{"id": "dc59a19013a1", "pipeline": "hello", "workers": 2, "state": "done", "counts": {"waiting": 0, "running": 0, "done": 2, "failed": 0}, "created": 1795802067.404171, "launched": 1795802069.8881104, "first_hello": 1795802067.7990274, "last_hello": 1795802069.915923, "finished": 1795802069.9635239, "params": {"text": "hello", "rounds": 1}, "engine": "local", "function": "hello", "spares": 0, "retries": 2, "launches": {"throttled": 5, "accepted": 2}, "dismissed": 0, "error": null, "cost_usd": 1e-06, "gb_s": 0.045, "result": {"said_hello": 2}}','[{"actor": 0, "state": "done", "label": "TerminalState", "attempt": 1, "since": 1795802067.8401864, "waits_for": null, "last_reply": "OK:ECHO(hello from actor 0)", "error": null, "result": null, "failures": []}, {"actor": 1, "state": "done", "label": "TerminalState", "attempt": 1, "since": 1795802069.9600263, "waits_for": null, "last_reply": "OK:ECHO(hello from actor 1)", "error": null, "result": null, "failures": []}]','{"key": "", "digest": "42b3e5bc86148a471d3fa106332ebe07caa79d02a535897b90b3507ef83a8ce5"}');
INSERT INTO "past" VALUES('31a2049f7045',1.79580207013323831562e+09,4103,'{"id": "31a2049f7045", "pipeline": "png2y4m", "workers": 1, "state": "failed", "counts": {"waiting": 0, "running": 0, "done": 0, "failed": 1}, "created": 1795802070.0015197, "launched": 1795802070.0078893, "first_hello": 1795802070.0403087, "last_hello": 1795802070.0403087, "finished": 1795802070.1332383, "params": {"video": "none", "bucket": "films", "in_format": "png16", "frames": 2, "offset": 0}, "engine": "local", "function": "png2y4m", "spares": 0, "retries": 0, "launches": {"accepted": 1}, "dismissed": 0, "error": "1 of 1 actors failed: actor 0: Retrieve (retrieving frames): the worker answered ''FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)''", "cost_usd": 1e-06, "gb_s": 0.046, "result": {"keys": []}}','[{"actor": 0, "state": "failed", "label": "Retrieve (retrieving frames)", "attempt": 1, "since": 1795802070.1313784, "waits_for": null, "last_reply": "FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)", "error": "Retrieve (retrieving frames): the worker answered ''FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)''", "result": null, "failures": [{"attempt": 1, "at": 1795802070.1313784, "label": "Retrieve (retrieving frames)", "last_reply": "FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)", "error": "Retrieve (retrieving frames): the worker answered ''FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)''"}]}]','{"key": "", "digest": "d3e12308a75d99a52a1283255623b2b98973b8339e75480c8762b0b0edc574ed"}');
CREATE TABLE records (number integer primary key, job text not null, lines blob not null);
INSERT INTO "records" VALUES(1,'dc59a19013a1',cast('["ordered",1795802067.404171,"ec7f13166333606e",{"pipeline":"hello","workers":2,"actors":[],"params":{"text":"hello","rounds":1},"engine":"local","function":"","regions":["us-east-1"],"spares":0,"retries":2,"on_failure":"finish","tolerate":0,"stragglers":3.0,"worker_timeout_s":900.0,"deadline_s":3600.0,"max_cost_usd":0.0,"copies":0,"event":{}},"","42b3e5bc86148a471d3fa106332ebe07caa79d02a535897b90b3507ef83a8ce5","127.0.0.1:34283"]' as blob));
INSERT INTO "records" VALUES(2,'dc59a19013a1',cast('["planned",[{},{}],[0,1]]
["sized",{"us-east-1":[512,"x86_64"]}]
["launching",1795802067.40963,"dec63528dfa859fa",0]
["launching",1795802067.40963,"707fc9e176d71b66",1]' as blob));
INSERT INTO "records" VALUES(3,'dc59a19013a1',cast('["launched","dec63528dfa859fa","accepted"]
["assigned",1795802067.7990587,0,1,"9c98e2bd426efb56d4b377b44292612b","dec63528dfa859fa"]
["happened",0,1,"e4a6a0577479b2b4",["entered",1795802067.7994766]]
["happened",0,1,"1dcae74e0e773ca9",["answered",1795802067.7994766,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(4,'dc59a19013a1',cast('["happened",0,1,"f3328eb871fdc7f3",["answered",1795802067.8401864,"OK:ECHO(hello from actor 0)",1]]
["attemptended",1795802067.8401864,0,1,null,null,"TerminalState","OK:ECHO(hello from actor 0)",true]' as blob));
INSERT INTO "records" VALUES(5,'dc59a19013a1',cast('["launched","707fc9e176d71b66","accepted"]
["assigned",1795802069.9159498,1,1,"25efc66f409c8b7d6336c6e31b1f61bd","707fc9e176d71b66"]
["happened",1,1,"e4a6a0577479b2b4",["entered",1795802069.9162288]]
["happened",1,1,"bc19e646a4a6997b",["answered",1795802069.9162288,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(6,'dc59a19013a1',cast('["happened",1,1,"f3328eb871fdc7f3",["answered",1795802069.9600263,"OK:ECHO(hello from actor 1)",1]]
["attemptended",1795802069.9600263,1,1,null,null,"TerminalState","OK:ECHO(hello from actor 1)",true]' as blob));
INSERT INTO "records" VALUES(7,'31a2049f7045',cast('["ordered",1795802070.0015197,"43d48df6c533834a",{"pipeline":"png2y4m","workers":1,"actors":[],"params":{"video":"none","bucket":"films","in_format":"png16","frames":2,"offset":0},"engine":"local","function":"","regions":["us-east-1"],"spares":0,"retries":0,"on_failure":"finish","tolerate":0,"stragglers":3.0,"worker_timeout_s":900.0,"deadline_s":3600.0,"max_cost_usd":0.0,"copies":0,"event":{}},"","d3e12308a75d99a52a1283255623b2b98973b8339e75480c8762b0b0edc574ed","127.0.0.1:34283"]' as blob));
INSERT INTO "records" VALUES(8,'31a2049f7045',cast('["planned",[{"in_keys":["none-png16/00000001.png","none-png16/00000002.png"],"out_key":"none-y4m_02/00000000.y4m"}],[0]]
["sized",{"us-east-1":[512,"x86_64"]}]
["launching",1795802070.0050874,"d24402bb0a1e4bb0",0]' as blob));
INSERT INTO "records" VALUES(9,'31a2049f7045',cast('["launched","d24402bb0a1e4bb0","accepted"]
["assigned",1795802070.0403311,0,1,"67a92b02f00536deeb707da8aed88099","d24402bb0a1e4bb0"]
["happened",0,1,"e4a6a0577479b2b4",["entered",1795802070.0406032]]
["happened",0,1,"feb59dc1fe76cf34",["answered",1795802070.0406032,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(10,'31a2049f7045',cast('["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0862658,"OK:SETI(nonblock)",1]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0883174,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_7154183ffd2b61bb)",2]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0908067,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_7154183ffd2b61bb)",3]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.090871,"OK:SET(bucket)",4]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0908954,"OK:SET(cmdinfile)",5]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0909224,"OK:SET(cmdoutfile)",6]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.0909445,"OK:SET(fromfile)",7]]
["happened",0,1,"50266aeaa5642f1f",["answered",1795802070.090961,"OK:SET(outkey)",8]]
["happened",0,1,"74eaee0319fd25f8",["answered",1795802070.0914843,"OK:SET(inkey)",9]]
["happened",0,1,"471ec2d9e56f1c08",["answered",1795802070.0919437,"OK:SET(targfile)",10]]
["happened",0,1,"3403b4411bfcfd1e",["answered",1795802070.1313784,"FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)",11]]
["attemptended",1795802070.1313784,0,1,"Retrieve (retrieving frames): the worker answered ''FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)''",null,"Retrieve (retrieving frames)","FAIL(could not retrieve films/none-png16/00000001.png to /tmp/mu_7154183ffd2b61bb/00000001.png: NoSuchKey)",true]' as blob));
INSERT INTO "records" VALUES(11,'958dd16b5487',cast('["ordered",1795802070.1646163,"34fc6c36c9bd552f",{"pipeline":"png2y4m","workers":4,"actors":[],"params":{"video":"kept","bucket":"films","in_format":"png16","frames":2,"offset":0},"engine":"local","function":"","regions":["us-east-1"],"spares":1,"retries":2,"on_failure":"finish","tolerate":0,"stragglers":3.0,"worker_timeout_s":900.0,"deadline_s":3600.0,"max_cost_usd":0.0,"copies":0,"event":{}},"","e87c6f792b6ad7868646952247ddb1e0f978fe3b37dc33786abdb766bdd8d88f","127.0.0.1:34283"]' as blob));
INSERT INTO "records" VALUES(12,'958dd16b5487',cast('["planned",[{"in_keys":["kept-png16/00000001.png","kept-png16/00000002.png"],"out_key":"kept-y4m_02/00000000.y4m"},{"in_keys":["kept-png16/00000003.png","kept-png16/00000004.png"],"out_key":"kept-y4m_02/00000001.y4m"},{"in_keys":["kept-png16/00000005.png","kept-png16/00000006.png"],"out_key":"kept-y4m_02/00000002.y4m"},{"in_keys":["kept-png16/00000007.png","kept-png16/00000008.png"],"out_key":"kept-y4m_02/00000003.y4m"}],[0,1,2,3]]
["sized",{"us-east-1":[512,"x86_64"]}]
["launching",1795802070.1676006,"2a4733dc33ab4d28",0]
["launching",1795802070.1676006,"73e74766855b998f",1]
["launching",1795802070.1676006,"33bda1cbfbbb5c35",2]
["launching",1795802070.1676006,"2da8474e6ec88692",3]
["launching",1795802070.1676006,"fc43b098f3f35a50",4]' as blob));
INSERT INTO "records" VALUES(13,'958dd16b5487',cast('["launched","73e74766855b998f","accepted"]
["launched","33bda1cbfbbb5c35","accepted"]
["launched","2da8474e6ec88692","accepted"]
["launched","fc43b098f3f35a50","accepted"]
["assigned",1795802070.2161407,0,1,"381302c3a39be898cedcc8bd75923b55","2da8474e6ec88692"]
["happened",0,1,"e4a6a0577479b2b4",["entered",1795802070.2164006]]
["happened",0,1,"c5ab17535e4e0129",["answered",1795802070.2164006,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(14,'958dd16b5487',cast('["assigned",1795802070.2239325,1,1,"9f82015ada45d4fd58256496078648a6","33bda1cbfbbb5c35"]
["happened",1,1,"e4a6a0577479b2b4",["entered",1795802070.2241147]]
["happened",1,1,"03f9f74b6719ca65",["answered",1795802070.2241147,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(15,'958dd16b5487',cast('["assigned",1795802070.2359385,2,1,"dfc67a3051cbc732ab4b07f0219bd7c3","73e74766855b998f"]
["happened",2,1,"e4a6a0577479b2b4",["entered",1795802070.2361073]]
["happened",2,1,"0aa2ac95a693c919",["answered",1795802070.2361073,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(16,'958dd16b5487',cast('["assigned",1795802070.2573538,3,1,"49366e40f54e25cd54934c60d3734b51","fc43b098f3f35a50"]
["happened",3,1,"e4a6a0577479b2b4",["entered",1795802070.2575314]]
["happened",3,1,"b53a1cba65d464a4",["answered",1795802070.2575314,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(17,'958dd16b5487',cast('["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.2805243,"OK:SETI(nonblock)",1]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.2923484,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_d9bd62c5e693145a)",2]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.303787,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_d9bd62c5e693145a)",3]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.3038437,"OK:SET(bucket)",4]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.3038642,"OK:SET(cmdinfile)",5]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.3038802,"OK:SET(cmdoutfile)",6]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802070.3038945,"OK:SET(fromfile)",7]]
["happened",0,1,"624e7ebef4809ee4",["answered",1795802070.3039083,"OK:SET(outkey)",8]]
["happened",0,1,"74eaee0319fd25f8",["answered",1795802070.3042924,"OK:SET(inkey)",9]]
["happened",0,1,"471ec2d9e56f1c08",["answered",1795802070.3045058,"OK:SET(targfile)",10]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3052914,"OK:SETI(nonblock)",1]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3314955,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_d5a62bfc5a34c49b)",2]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.331633,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_d5a62bfc5a34c49b)",3]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3316586,"OK:SET(bucket)",4]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3316777,"OK:SET(cmdinfile)",5]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3316927,"OK:SET(cmdoutfile)",6]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802070.3317053,"OK:SET(fromfile)",7]]
["happened",1,1,"43772fc4291684a7",["answered",1795802070.3317175,"OK:SET(outkey)",8]]
["happened",0,1,"bc2a930199a325d0",["answered",1795802070.3363779,"OK:RETRIEVE(films/kept-png16/00000001.png)",11]]
["happened",0,1,"8bfb449c8b3c2797",["answered",1795802070.3367987,"OK:SET(inkey)",12]]
["happened",0,1,"471ec2d9e56f1c08",["answered",1795802070.3369834,"OK:SET(targfile)",13]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.3381703,"OK:SETI(nonblock)",1]]
["happened",1,1,"74eaee0319fd25f8",["answered",1795802070.338468,"OK:SET(inkey)",9]]
["happened",1,1,"471ec2d9e56f1c08",["answered",1795802070.3387978,"OK:SET(targfile)",10]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.3421764,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_d71dd077e56aeee3)",2]]
["happened",0,1,"5d8287c44488cbe2",["answered",1795802070.3481758,"OK:RETRIEVE(films/kept-png16/00000002.png)",14]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.357559,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_d71dd077e56aeee3)",3]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.3576062,"OK:SET(bucket)",4]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.3576248,"OK:SET(cmdinfile)",5]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.3576398,"OK:SET(cmdoutfile)",6]]
["happened",2,1,"e4a6a0577479b2b4",["answered",1795802070.357653,"OK:SET(fromfile)",7]]
["happened",2,1,"f45f6dcd58ed28b8",["answered",1795802070.3576648,"OK:SET(outkey)",8]]
["happened",2,1,"74eaee0319fd25f8",["answered",1795802070.3605268,"OK:SET(inkey)",9]]
["happened",2,1,"471ec2d9e56f1c08",["answered",1795802070.3607876,"OK:SET(targfile)",10]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.38175,"OK:SETI(nonblock)",1]]' as blob));
INSERT INTO "records" VALUES(18,'958dd16b5487',cast('["happened",0,1,"331a8bce34edec77",["answered",1795802070.3888075,"OK:RETVAL(0):OUTPUT():COMMAND(./join /tmp/mu_d9bd62c5e693145a/%08d.png /tmp/mu_d9bd62c5e693145a/out.y4m)",15]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.3954341,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_67d5c712c47d5d62)",2]]
["happened",0,1,"88ae418fabe1ff0b",["answered",1795802070.3965786,"OK:UPLOAD(films/kept-y4m_02/00000000.y4m)",16]]
["attemptended",1795802070.3965786,0,1,null,{"key":"kept-y4m_02/00000000.y4m"},"Final (done)","OK:UPLOAD(films/kept-y4m_02/00000000.y4m)",true]' as blob));
INSERT INTO "records" VALUES(19,'958dd16b5487',cast('["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.4012334,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_67d5c712c47d5d62)",3]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.4012907,"OK:SET(bucket)",4]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.4013133,"OK:SET(cmdinfile)",5]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.4013298,"OK:SET(cmdoutfile)",6]]
["happened",3,1,"e4a6a0577479b2b4",["answered",1795802070.4013443,"OK:SET(fromfile)",7]]
["happened",3,1,"df92300b745cf8aa",["answered",1795802070.4013584,"OK:SET(outkey)",8]]
["happened",3,1,"74eaee0319fd25f8",["answered",1795802070.4105155,"OK:SET(inkey)",9]]
["happened",2,1,"afbc991179cb7c00",["answered",1795802070.4151695,"OK:RETRIEVE(films/kept-png16/00000005.png)",11]]
["happened",2,1,"8bfb449c8b3c2797",["answered",1795802070.4156578,"OK:SET(inkey)",12]]
["happened",2,1,"471ec2d9e56f1c08",["answered",1795802070.4158478,"OK:SET(targfile)",13]]
["happened",3,1,"471ec2d9e56f1c08",["answered",1795802070.416401,"OK:SET(targfile)",10]]
["happened",2,1,"5d8287c44488cbe2",["answered",1795802070.4205945,"OK:RETRIEVE(films/kept-png16/00000006.png)",14]]
["happened",1,1,"9ea033c073769220",["answered",1795802070.4255564,"OK:RETRIEVE(films/kept-png16/00000003.png)",11]]
["happened",1,1,"8bfb449c8b3c2797",["answered",1795802070.4259233,"OK:SET(inkey)",12]]
["happened",1,1,"471ec2d9e56f1c08",["answered",1795802070.426109,"OK:SET(targfile)",13]]
["happened",1,1,"5d8287c44488cbe2",["answered",1795802070.4316132,"OK:RETRIEVE(films/kept-png16/00000004.png)",14]]
["happened",1,1,"331a8bce34edec77",["answered",1795802070.446891,"OK:RETVAL(0):OUTPUT():COMMAND(./join /tmp/mu_d5a62bfc5a34c49b/%08d.png /tmp/mu_d5a62bfc5a34c49b/out.y4m)",15]]
["happened",1,1,"06419db3bc9693d1",["answered",1795802070.452515,"OK:UPLOAD(films/kept-y4m_02/00000001.y4m)",16]]
["attemptended",1795802070.452515,1,1,null,{"key":"kept-y4m_02/00000001.y4m"},"Final (done)","OK:UPLOAD(films/kept-y4m_02/00000001.y4m)",true]' as blob));
INSERT INTO "records" VALUES(20,'958dd16b5487',cast('["happened",3,1,"21fa313af82ab670",["answered",1795802070.4799347,"OK:RETRIEVE(films/kept-png16/00000007.png)",11]]
["happened",3,1,"8bfb449c8b3c2797",["answered",1795802070.4803195,"OK:SET(inkey)",12]]
["happened",3,1,"471ec2d9e56f1c08",["answered",1795802070.480501,"OK:SET(targfile)",13]]
["happened",3,1,"5d8287c44488cbe2",["answered",1795802070.483207,"OK:RETRIEVE(films/kept-png16/00000008.png)",14]]' as blob));
INSERT INTO "records" VALUES(21,'958dd16b5487',cast('["launched","2a4733dc33ab4d28","accepted"]' as blob));
INSERT INTO "records" VALUES(22,'958dd16b5487',cast('["assigned",1795802071.166353,2,2,"a5d9b821c972101374922880273b69ba","2a4733dc33ab4d28"]
["happened",2,2,"e4a6a0577479b2b4",["entered",1795802071.1666334]]
["happened",2,2,"0aa2ac95a693c919",["answered",1795802071.1666334,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(23,'958dd16b5487',cast('["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.1690414,"OK:SETI(nonblock)",1]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.1717088,"OK:RETVAL(0):OUTPUT():COMMAND(rm -rf /tmp/mu_8cf3b2c002661189)",2]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.173856,"OK:RETVAL(0):OUTPUT():COMMAND(mkdir -p /tmp/mu_8cf3b2c002661189)",3]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.1739051,"OK:SET(bucket)",4]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.173925,"OK:SET(cmdinfile)",5]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.1739411,"OK:SET(cmdoutfile)",6]]
["happened",2,2,"e4a6a0577479b2b4",["answered",1795802071.173955,"OK:SET(fromfile)",7]]
["happened",2,2,"f45f6dcd58ed28b8",["answered",1795802071.1739676,"OK:SET(outkey)",8]]
["happened",2,2,"74eaee0319fd25f8",["answered",1795802071.1743548,"OK:SET(inkey)",9]]
["happened",2,2,"471ec2d9e56f1c08",["answered",1795802071.1745565,"OK:SET(targfile)",10]]' as blob));
INSERT INTO "records" VALUES(24,'b595a6637ed4',cast('["ordered",1795802071.1803792,"45c8cd9581df4fbf",{"pipeline":"linpack","workers":2,"actors":[],"params":{"command":"./work","copies":2,"output_chars":4000},"engine":"local","function":"","regions":["us-east-1"],"spares":0,"retries":2,"on_failure":"finish","tolerate":0,"stragglers":3.0,"worker_timeout_s":900.0,"deadline_s":3600.0,"max_cost_usd":0.0,"copies":0,"event":{}},"","7ef46d5bac038d7a76f63f95de25980967431c333c340945e71abce5175a51bd","127.0.0.1:34283"]' as blob));
INSERT INTO "records" VALUES(25,'b595a6637ed4',cast('["planned",[{},{}],[0,1]]
["sized",{"us-east-1":[512,"x86_64"]}]
["launching",1795802071.1826885,"bf3d5ee964a0b1b2",0]
["launching",1795802071.1826885,"73749736be5391a4",1]' as blob));
INSERT INTO "records" VALUES(26,'958dd16b5487',cast('["happened",2,2,"afbc991179cb7c00",["answered",1795802071.1842835,"OK:RETRIEVE(films/kept-png16/00000005.png)",11]]
["happened",2,2,"8bfb449c8b3c2797",["answered",1795802071.1846108,"OK:SET(inkey)",12]]
["happened",2,2,"471ec2d9e56f1c08",["answered",1795802071.184789,"OK:SET(targfile)",13]]
["happened",2,2,"5d8287c44488cbe2",["answered",1795802071.1880782,"OK:RETRIEVE(films/kept-png16/00000006.png)",14]]' as blob));
INSERT INTO "records" VALUES(27,'b595a6637ed4',cast('["launched","bf3d5ee964a0b1b2","accepted"]
["assigned",1795802071.2129552,0,1,"dcd0ff969bce03aad5092338dec018b1","bf3d5ee964a0b1b2"]
["happened",0,1,"e4a6a0577479b2b4",["entered",1795802071.2131367]]
["happened",0,1,"38cc8007a14667f9",["answered",1795802071.2131367,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(28,'b595a6637ed4',cast('["happened",0,1,"6fbc0645cdb338e6",["answered",1795802071.2560675,"OK:SETI(nonblock)",1]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802071.257799,"OK:RUNNING(./work)",2]]
["happened",0,1,"e4a6a0577479b2b4",["answered",1795802071.2578797,"OK:RUNNING(./work)",3]]' as blob));
INSERT INTO "records" VALUES(29,'958dd16b5487',cast('["alive",1795802080.1717663]' as blob));
INSERT INTO "records" VALUES(30,'958dd16b5487',cast('["happened",2,1,"322d020ef6efd535",["lost",1795802080.473663,"its worker at 127.0.0.1:59882 is gone: the connection broke (Connection to the other side was lost in a non-clean fashion: Connection lost.); it did not come back within 10 s"]]
["attemptended",1795802080.473663,2,1,"Convert (converting and uploading): its worker at 127.0.0.1:59882 is gone: the connection broke (Connection to the other side was lost in a non-clean fashion: Connection lost.); it did not come back within 10 s",null,"Convert (converting and uploading)","OK:RETRIEVE(films/kept-png16/00000006.png)",true]' as blob));
INSERT INTO "records" VALUES(31,'b595a6637ed4',cast('["launched","73749736be5391a4","accepted"]
["assigned",1795802080.524581,1,1,"0e93cc24f9e15afd71d84d4c1fa647f0","73749736be5391a4"]
["happened",1,1,"e4a6a0577479b2b4",["entered",1795802080.524812]]
["happened",1,1,"38cc8007a14667f9",["answered",1795802080.524812,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(32,'b595a6637ed4',cast('["happened",1,1,"6fbc0645cdb338e6",["answered",1795802080.5679278,"OK:SETI(nonblock)",1]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802080.5697024,"OK:RUNNING(./work)",2]]
["happened",1,1,"e4a6a0577479b2b4",["answered",1795802080.569767,"OK:RUNNING(./work)",3]]' as blob));
INSERT INTO "records" VALUES(33,'fdc8be445875',cast('["ordered",1795802081.0281687,"1de61fe04ec36474",{"pipeline":"hello","workers":8,"actors":[],"params":{"text":"hello","rounds":1},"engine":"local","function":"","regions":["us-east-1"],"spares":0,"retries":2,"on_failure":"finish","tolerate":0,"stragglers":3.0,"worker_timeout_s":900.0,"deadline_s":3600.0,"max_cost_usd":0.0,"copies":0,"event":{}},"","8f43a024bd085c814938507c459a5a3e960c5656e80ccc17a5c415037ba267f7","127.0.0.1:34283"]' as blob));
INSERT INTO "records" VALUES(34,'fdc8be445875',cast('["planned",[{},{},{},{},{},{},{},{}],[0,1,2,3,4,5,6,7]]
["sized",{"us-east-1":[512,"x86_64"]}]
["launching",1795802081.0308754,"814b7dc514a876cc",0]
["launching",1795802081.0308754,"cdd18da00e5e1895",1]
["launching",1795802081.0308754,"5b7869a22ff00a2e",2]
["launching",1795802081.0308754,"184c4abe213780d0",3]
["launching",1795802081.0308754,"8740aca6c382215f",4]
["launching",1795802081.0308754,"af1a1dbd3f7a832a",5]
["launching",1795802081.0308754,"0096b10a11c871f6",6]
["launching",1795802081.0308754,"6135d6c1e255c2c0",7]' as blob));
INSERT INTO "records" VALUES(35,'fdc8be445875',cast('["launched","814b7dc514a876cc","accepted"]
["launched","cdd18da00e5e1895","accepted"]
["launched","5b7869a22ff00a2e","accepted"]
["launched","af1a1dbd3f7a832a","accepted"]
["launched","0096b10a11c871f6","accepted"]
["launched","6135d6c1e255c2c0","accepted"]
["assigned",1795802081.109954,0,1,"64070befb067a5ae7491eb0c4285bcb0","814b7dc514a876cc"]
["happened",0,1,"e4a6a0577479b2b4",["entered",1795802081.1102352]]
["happened",0,1,"1dcae74e0e773ca9",["answered",1795802081.1102352,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(36,'fdc8be445875',cast('["assigned",1795802081.132209,1,1,"0ef08962b2c5085dc4fde95af2b111cc","cdd18da00e5e1895"]
["happened",1,1,"e4a6a0577479b2b4",["entered",1795802081.1325936]]
["happened",1,1,"bc19e646a4a6997b",["answered",1795802081.1325936,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(37,'fdc8be445875',cast('["assigned",1795802081.137329,2,1,"a1207b4cc1d346b7fc8d38cfd47b72b2","5b7869a22ff00a2e"]
["happened",2,1,"e4a6a0577479b2b4",["entered",1795802081.1375437]]
["happened",2,1,"c1ecd64c36b54cff",["answered",1795802081.1375437,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(38,'fdc8be445875',cast('["happened",0,1,"f3328eb871fdc7f3",["answered",1795802081.159424,"OK:ECHO(hello from actor 0)",1]]
["attemptended",1795802081.159424,0,1,null,null,"TerminalState","OK:ECHO(hello from actor 0)",true]
["assigned",1795802081.1601174,3,1,"0bc78695f710d7120262021b0660f490","0096b10a11c871f6"]
["happened",3,1,"e4a6a0577479b2b4",["entered",1795802081.1602654]]
["happened",3,1,"f46e07347b7b5845",["answered",1795802081.1602654,"OK:HELLO",0]]
["assigned",1795802081.160847,4,1,"e305d38fed150283c91299a08f24e8ee","6135d6c1e255c2c0"]
["happened",4,1,"e4a6a0577479b2b4",["entered",1795802081.160957]]
["happened",4,1,"c8be1350fa65e8df",["answered",1795802081.160957,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(39,'fdc8be445875',cast('["assigned",1795802081.1751752,5,1,"45c5396e0ebbb5c4ff7c6ba720be0b07","af1a1dbd3f7a832a"]
["happened",5,1,"e4a6a0577479b2b4",["entered",1795802081.1753812]]
["happened",5,1,"bfe372bb3d2995e3",["answered",1795802081.1753812,"OK:HELLO",0]]' as blob));
INSERT INTO "records" VALUES(40,'fdc8be445875',cast('["happened",1,1,"f3328eb871fdc7f3",["answered",1795802081.179811,"OK:ECHO(hello from actor 1)",1]]
["attemptended",1795802081.179811,1,1,null,null,"TerminalState","OK:ECHO(hello from actor 1)",true]' as blob));
INSERT INTO "records" VALUES(41,'fdc8be445875',cast('["happened",2,1,"f3328eb871fdc7f3",["answered",1795802081.1800733,"OK:ECHO(hello from actor 2)",1]]
["attemptended",1795802081.1800733,2,1,null,null,"TerminalState","OK:ECHO(hello from actor 2)",true]' as blob));
INSERT INTO "records" VALUES(42,'b595a6637ed4',cast('["alive",1795802081.189325]' as blob));
INSERT INTO "records" VALUES(43,'fdc8be445875',cast('["happened",4,1,"f3328eb871fdc7f3",["answered",1795802081.2038689,"OK:ECHO(hello from actor 4)",1]]
["attemptended",1795802081.2038689,4,1,null,null,"TerminalState","OK:ECHO(hello from actor 4)",true]' as blob));
INSERT INTO "records" VALUES(44,'fdc8be445875',cast('["happened",3,1,"f3328eb871fdc7f3",["answered",1795802081.204219,"OK:ECHO(hello from actor 3)",1]]
["attemptended",1795802081.204219,3,1,null,null,"TerminalState","OK:ECHO(hello from actor 3)",true]' as blob));
INSERT INTO "records" VALUES(45,'fdc8be445875',cast('["happened",5,1,"f3328eb871fdc7f3",["answered",1795802081.219916,"OK:ECHO(hello from actor 5)",1]]
["attemptended",1795802081.219916,5,1,null,null,"TerminalState","OK:ECHO(hello from actor 5)",true]' as blob));
CREATE INDEX of_a_job on records (job, number);
COMMIT;
