"""A leaf at the broker, as the BranchKey client of each generation behaves, written for this test with Debian's pika.

One argument, JSON: generation ("2.0", "2.1", "2.2", "2.5" or "2.7"), host, port, vhost, user, password, queue, and for 2.0
exchange, for 2.5 and 2.7 run_url and authorization, with "tls" true for TLS. Prints one JSON object a line: {"event": ...}
as things happen, {"put": ...} for what lands in the client's queue. Ends with its standard input.
"""

import json
import os
import ssl
import sys
import threading
import time
import urllib.request

import pika


def say(**fields):
    print(json.dumps(fields), flush=True)


def end_with_input():
    sys.stdin.read()
    os._exit(0)


class Leaf:
    def __init__(self, config):
        self.config = config
        self.generation = config["generation"]

    def parameters(self):
        config = self.config
        tls = None
        if config.get("tls"):
            tls = pika.SSLOptions(ssl.create_default_context(), config["host"])
        return pika.ConnectionParameters(
            host=config["host"],
            port=config["port"],
            virtual_host=config["vhost"],
            credentials=pika.PlainCredentials(config["user"], config["password"]),
            heartbeat=30,
            connection_attempts=3,
            retry_delay=0.2 if self.generation == "2.7" else 3,
            ssl_options=tls,
        )

    def ask_run(self):
        headers = {"Authorization": self.config["authorization"], "leaf": "true"}
        request = urllib.request.Request(self.config["run_url"], headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]

    def declare(self, channel):
        queue, exchange = self.config["queue"], self.config["exchange"]
        channel.exchange_declare(exchange, exchange_type="fanout", durable=True, auto_delete=True)
        channel.queue_declare(queue, durable=True, arguments={"x-expires": 30000})
        channel.queue_bind(queue, exchange, routing_key=queue)

    def on_message(self, channel, method, _properties, body):
        ack = lambda: channel.basic_ack(method.delivery_tag)
        text = body.decode("utf-8")
        if self.generation in ("2.0", "2.1"):
            ack()
            say(put=text)
            return
        message = json.loads(text)
        kind = message["message_type"]
        if kind == "aggregation_status":
            ack()
            say(put=message["body"]["aggregation_id"])
        elif kind == "run_status":
            status = message["body"]["run_status"]
            number = None
            if self.generation in ("2.5", "2.7"):
                if status == "start":
                    number = self.ask_run()["run_number"]
                ack()
            say(event="run", status=status, number=number)
        else:
            say(event="unknown", type=kind)

    def consume(self):
        connection = pika.BlockingConnection(self.parameters())
        channel = connection.channel()
        if self.generation == "2.0":
            self.declare(channel)
        channel.basic_consume(self.config["queue"], self.on_message)
        say(event="consuming")
        channel.start_consuming()

    def run(self):
        while True:
            try:
                self.consume()
                say(event="cancelled")
                return
            except pika.exceptions.ChannelClosedByBroker as error:
                say(event="closed", code=error.reply_code)
                return
            except (pika.exceptions.AMQPError, OSError) as error:
                say(event="broken", error=type(error).__name__)
                if self.generation != "2.7":
                    return
                time.sleep(0.2)


threading.Thread(target=end_with_input, daemon=True).start()
Leaf(json.loads(sys.argv[1])).run()
