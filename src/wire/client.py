import json, socket, sys, threading, uuid

server = socket.create_connection((sys.argv[2], int(sys.argv[3])))
def say(**message):
    server.sendall(json.dumps(message).encode() + b"\n")
def listen():
    for message in map(json.loads, server.makefile()):
        if message["type"] == "HEARTBEAT": say(type="HEARTBEAT")
        if message["type"] == "CHAT": print(f'{message["sender_id"]}: {message["content"]}', flush=True)
        if message["type"] == "ERROR": print(message["content"]["reason"], file=sys.stderr)
threading.Thread(target=listen).start()
say(type="CLIENT_JOIN", sender_id=sys.argv[1], content={"session": uuid.uuid4().hex})
say(type="JOIN_ROOM", room_id="lobby")
for n, line in enumerate(sys.stdin):
    say(type="CHAT", message_id=str(n), room_id="lobby", content=line.rstrip("\n"))
say(type="CLIENT_LEAVE")
