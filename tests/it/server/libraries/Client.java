// A client on Java's own TLS, for the tests: connects to localhost some times
// with one context, says hello, closes its half and prints what comes.
//
// Client PORT ANCHOR TIMES [protocol=NAME] [suite=NAME] [identity=FILE]
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import javax.net.ssl.*;

public class Client {
    static SSLContext context(String anchor, String identity) throws Exception {
        KeyStore anchors = KeyStore.getInstance("PKCS12");
        anchors.load(null, null);
        try (InputStream in = new FileInputStream(anchor)) {
            anchors.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(anchors);
        KeyManager[] keys = null;
        if (identity != null) {
            char[] password = "sesame".toCharArray();
            KeyStore own = KeyStore.getInstance("PKCS12");
            try (InputStream in = new FileInputStream(identity)) {
                own.load(in, password);
            }
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(own, password);
            keys = factory.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, trust.getTrustManagers(), null);
        return context;
    }

    public static void main(String[] words) throws Exception {
        String protocol = null, suite = null, identity = null;
        for (int i = 3; i < words.length; i++) {
            String[] pair = words[i].split("=", 2);
            switch (pair[0]) {
                case "protocol": protocol = pair[1]; break;
                case "suite": suite = pair[1]; break;
                case "identity": identity = pair[1]; break;
                default: throw new IllegalArgumentException(words[i]);
            }
        }
        SSLSocketFactory factory = context(words[1], identity).getSocketFactory();
        for (int left = Integer.parseInt(words[2]); left > 0; left--) {
            try (SSLSocket socket = (SSLSocket) factory.createSocket("localhost", Integer.parseInt(words[0]))) {
                socket.setSoTimeout(30000);
                SSLParameters parameters = socket.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                // Of itself it sends no name without a dot.
                parameters.setServerNames(List.of(new SNIHostName("localhost")));
                if (protocol != null) parameters.setProtocols(new String[] {protocol});
                if (suite != null) parameters.setCipherSuites(new String[] {suite});
                socket.setSSLParameters(parameters);
                socket.startHandshake();
                socket.getOutputStream().write("hello\n".getBytes(StandardCharsets.US_ASCII));
                socket.shutdownOutput();
                System.out.write(socket.getInputStream().readAllBytes());
                System.out.flush();
            } catch (IOException error) {
                System.err.println(error);
                System.exit(1);
            }
        }
    }
}
