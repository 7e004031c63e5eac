// Parses what it is sent and acknowledges it, and keeps nothing. Usage: node receive.js PORT
const hl7 = require("simple-hl7");

hl7.Server.createTcpServer((error, request, response) => {
  if (!error) response.end();
}).start(Number(process.argv[2]));
