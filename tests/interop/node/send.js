// Sends the messages on standard input (a JSON list of texts) one after the other on one connection and prints the
// answers as a JSON list. Usage: node send.js HOST PORT
const hl7 = require("simple-hl7");

const [host, port] = process.argv.slice(2);
const parser = new hl7.Parser();
const client = hl7.Server.createTcpClient(host, Number(port));
const answers = [];

function next(texts) {
  if (texts.length === 0) {
    client.close();
    process.stdout.write(JSON.stringify(answers));
    return;
  }
  client.send(parser.parse(texts[0]), (error, answer) => {
    if (error) {
      process.stderr.write(String(error));
      process.exit(1);
    }
    answers.push(answer.log());
    setImmediate(next, texts.slice(1)); // the client is free only after this callback
  });
}

let input = "";
process.stdin.on("data", (chunk) => (input += chunk));
process.stdin.on("end", () => next(JSON.parse(input)));
