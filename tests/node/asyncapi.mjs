// The official parser's judgement of an AsyncAPI document: what it has to say, and exit code 1 if that is an error.
import { Parser, fromFile } from '@asyncapi/parser';

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
for (const { code, message, path, severity } of diagnostics) {
  console.error(`${['error', 'warning', 'info', 'hint'][severity]} ${code} ${path.join('/')}: ${message}`);
}
if (!document) process.exit(1);
console.log(JSON.stringify(document.allMessages().map((each) => each.name())));
