const app = require("express")();
app.get("/hello/:name", (request, response) => {
  response.send(`hello ${request.params.name} from uid ${process.getuid()}\n`);
});
const server = app.listen(process.env.PORT);
process.on("SIGTERM", () => server.close());
