// @grpc/grpc-js, told what to do as channel.py is.
//
//     node client.js TARGET [OPTIONS]
//
// OPTIONS is a JSON object, the channel's. Reads a JSON object a line from stdin and
// answers each with one: {"send": RECORD} with "wait" if wanted, {"fresh": RECORD}
// for the same by a client of its own, {"burst": RECORDS} for all at once, with
// "clients" by each of so many fresh ones, {"idle": SECONDS}, {"states": null}.
"use strict";

const readline = require("node:readline");
const grpc = require("@grpc/grpc-js");

const METHOD = "/logagent.LogAgent/SendLog";
// Seconds after which a call hangs.
const DEADLINE = 60;

function varint(number) {
  const out = [];
  for (; number > 0x7f; number = Math.floor(number / 128)) {
    out.push((number & 0x7f) | 0x80);
  }
  out.push(number);
  return Buffer.from(out);
}

function textField(number, text) {
  const data = Buffer.from(text);
  return Buffer.concat([varint((number << 3) | 2), varint(data.length), data]);
}

function encode(record) {
  return Buffer.concat([
    textField(1, record.json_data),
    ...record.pipelines.map((name) => textField(2, name)),
    textField(3, record.api_key),
  ]);
}

// LogResponse{bool success=1; string message=2}
function decode(data) {
  const answer = { success: false, message: "" };
  for (let at = 0; at < data.length; ) {
    const [tag, value] = [data[at], data[at + 1]];
    at += 2;
    if (tag === ((1 << 3) | 0)) {
      answer.success = value !== 0;
    } else if (tag === ((2 << 3) | 2) && value < 0x80) {
      answer.message = data.subarray(at, at + value).toString();
      at += value;
    } else {
      throw new Error(`no LogResponse: ${data.toString("hex")}`);
    }
  }
  return answer;
}

function newClient(target, options) {
  return new grpc.Client(target, grpc.credentials.createInsecure(), options);
}

function send(client, record, wait) {
  const metadata = new grpc.Metadata({ waitForReady: Boolean(wait) });
  const options = { deadline: Date.now() + DEADLINE * 1000 };
  return new Promise((resolve) => {
    client.makeUnaryRequest(METHOD, encode, decode, record, metadata, options, (error, answer) =>
      resolve(
        error
          ? { code: grpc.status[error.code], message: error.details }
          : { code: "OK", ...answer },
      ),
    );
  });
}

// Clients of one process would else share a connection.
function freshClients(target, count) {
  const options = { "grpc.use_local_subchannel_pool": 1 };
  return Array.from({ length: count }, () => newClient(target, options));
}

// The states that the channel goes through from now on.
function watch(client) {
  const channel = client.getChannel();
  const states = [];
  const look = () => {
    const state = channel.getConnectivityState(false);
    states.push(grpc.connectivityState[state]);
    if (state === grpc.connectivityState.SHUTDOWN) {
      return;
    }
    channel.watchConnectivityState(state, Infinity, (error) => error || look());
  };
  look();
  return states;
}

async function obey(target, options) {
  const client = newClient(target, options);
  const states = watch(client);
  const lines = readline.createInterface({ input: process.stdin });
  for await (const line of lines) {
    const order = JSON.parse(line);
    let told = {};
    if (order.send) {
      told = await send(client, order.send, order.wait);
    } else if (order.fresh) {
      const fresh = newClient(target, options);
      told = await send(fresh, order.fresh, false);
      fresh.close();
    } else if (order.burst) {
      const clients = order.clients ? freshClients(target, order.clients) : [client];
      const calls = clients.flatMap((one) => order.burst.map((record) => send(one, record)));
      const answers = await Promise.all(calls);
      told = { calls: answers.length, failed: answers.filter((one) => one.code !== "OK") };
    } else if (order.idle) {
      await new Promise((resolve) => setTimeout(resolve, order.idle * 1000));
    } else if ("states" in order) {
      told = { states };
    } else {
      throw new Error(`no order: ${line}`);
    }
    process.stdout.write(`${JSON.stringify(told)}\n`);
  }
  client.close();
  process.exit(0);
}

const [target, options] = process.argv.slice(2);
obey(target, JSON.parse(options ?? "{}"));
